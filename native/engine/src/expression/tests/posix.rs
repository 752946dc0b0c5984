//! POSIX patterns.

use crate::expression::posix::{NESTING_MAX, PATTERN_BYTES_MAX, compile_regex};
use proptest::prelude::*;

fn matches(pattern: &str, flags: i64, text: &str) -> Option<bool> {
    let regex = compile_regex(pattern.as_bytes(), flags).ok()?;
    Some(regex.is_match(text.as_bytes()))
}

#[test]
fn basic_and_extended_patterns_mean_what_posix_says() {
    let (yes, no) = (Some(true), Some(false));
    let cases = [
        ("^Star", 0, "Star Wars", yes),
        ("Treck$", 0, "Star Wars", no),
        ("^sTaR", 2, "Star Wars", yes),
        ("10000.*", 0, "10000001", yes),
        ("[1-5]", 2, "97", no),
        ("^555.*", 0, "555-1234", yes),
        // Operators of extended patterns stand for themselves in basic ones.
        ("a+", 0, "aa", no),
        ("a+", 0, "a+", yes),
        ("a+", 1, "aa", yes),
        ("a|b", 0, "b", no),
        ("a|b", 1, "b", yes),
        ("^(ab)$", 0, "(ab)", yes),
        ("^(ab)$", 1, "ab", yes),
        ("^\\(ab\\)\\{2\\}$", 0, "abab", yes),
        ("^(ab){2}$", 1, "abab", yes),
        ("^(ab){2}$", 1, "ababab", no),
        ("^a{,2}$", 1, "aa", yes),
        ("^a{,2}$", 1, "aaa", no),
        ("^a{2,}$", 1, "aaa", yes),
        ("\\(a\\|b\\)c", 0, "bc", yes),
        ("a\\+b", 0, "aab", yes),
        ("*a", 0, "*a", yes),
        ("\\(*a\\)", 0, "*a", yes),
        ("^*a", 0, "*a", yes),
        ("a^b", 0, "a^b", yes),
        ("a$b", 0, "a$b", yes),
        ("a^b", 1, "a^b", no),
        // What the crate would take for something else.
        ("^(a+)?$", 1, "", yes),
        ("^a+?$", 1, "", yes),
        ("^a{2}?$", 1, "", yes),
        ("(?", 1, "a", None),
        ("\\d", 1, "d", yes),
        ("\\d", 1, "1", no),
        ("a)", 1, "a)", yes),
        ("#", 0, "#", yes),
        // Brackets.
        ("[]a]", 0, "]", yes),
        ("[^]a]", 0, "]", no),
        ("[a-]", 0, "-", yes),
        ("[\\n]", 0, "\\", yes),
        ("[\\n]", 0, "\n", no),
        ("[[:digit:]]", 0, "7", yes),
        ("[[:digit:]-z]", 0, "-", yes),
        ("[[.-.]-/]", 0, ".", yes),
        ("[[=a=]]", 0, "a", yes),
        ("[&&a]", 0, "&", yes),
        ("[a~~b]", 0, "~", yes),
        // Lines.
        ("a.b", 0, "a\nb", yes),
        ("a.b", 8, "a\nb", no),
        ("a[^x]b", 0, "a\nb", yes),
        ("a[^x]b", 8, "a\nb", no),
        ("^b", 0, "a\nb", no),
        ("^b", 8, "a\nb", yes),
        ("a$", 8, "a\nb", yes),
        // Words.
        ("\\<wars\\>", 2, "Star Wars", yes),
        ("\\<ars", 2, "Star Wars", no),
        ("", 0, "", yes),
        ("a||b", 1, "", yes),
        // Refused.
        ("\\(a\\)\\1", 0, "aa", None),
        ("(a)\\1", 1, "aa", None),
        ("*a", 1, "a", None),
        ("a|*", 1, "a", None),
        ("^*", 1, "a", None),
        ("{1}", 1, "a", None),
        ("\\{1\\}", 0, "a", None),
        ("a{2,1}", 1, "a", None),
        ("a{99999}", 1, "a", None),
        ("a{x}", 1, "a", None),
        ("(a", 1, "a", None),
        ("\\(a", 0, "a", None),
        ("a\\)", 0, "a", None),
        ("[a", 0, "a", None),
        ("[b-a]", 0, "a", None),
        ("[[:word:]]", 0, "a", None),
        ("[[.ab.]]", 0, "a", None),
        ("a\\", 0, "a", None),
        ("a", 16, "a", None),
        ("a", -1, "a", None),
    ];
    for (pattern, flags, text, expected) in cases {
        let found = matches(pattern, flags, text);
        assert_eq!(found, expected, "{pattern:?} with {flags} on {text:?}");
    }
}

#[test]
fn bytes_are_matched_one_by_one() {
    let regex = compile_regex("^..$".as_bytes(), 0).unwrap();
    assert!(regex.is_match("ä".as_bytes()));
    assert!(regex.is_match(&[0xff, 0xfe]));
    assert!(compile_regex(&[0xff], 0).unwrap().is_match(&[0xff]));
    assert_eq!(matches("Ä", 2, "ä"), Some(false));
}

#[test]
fn patterns_are_bounded() {
    for pattern in [
        "a".repeat(PATTERN_BYTES_MAX + 1),
        "(".repeat(NESTING_MAX + 1) + &")".repeat(NESTING_MAX + 1),
        "a".to_owned() + &"*".repeat(NESTING_MAX + 1),
        "((a{100}){100}){100}".to_owned(),
        "(.{0,32767}){0,32767}".to_owned(),
    ] {
        assert_eq!(matches(&pattern, 1, "a"), None, "{:.20}", pattern);
    }
    assert_eq!(
        matches(&("a".to_owned() + &"*".repeat(50)), 1, "b"),
        Some(true)
    );
}

proptest! {
    #[test]
    fn any_pattern_is_translated_or_refused(
        pattern in prop::collection::vec(
            prop_oneof![prop::sample::select(b"\\()[]{}*+?|^$.-:=,12ab\n".as_slice()), any::<u8>()],
            0..24,
        ),
        flags in 0..16_i64,
        text in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        // Whatever is accepted was understood by the crate: it panics on nothing, and so do we.
        if let Ok(regex) = compile_regex(&pattern, flags) {
            let _ = regex.is_match(&text);
        }
    }

    #[test]
    fn escaped_text_matches_itself_alone(text in "[ -~]{0,12}", other in "[ -~]{0,12}") {
        let pattern: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "<>'`{}()+?|".contains(c) {
                c.to_string()
            } else {
                format!("[{c}]")
            })
            .map(|piece| match piece.as_str() {
                "[^]" => "\\^".to_owned(),
                _ => piece,
            })
            .collect();
        let pattern = format!("^{pattern}$");
        prop_assert_eq!(matches(&pattern, 0, &text), Some(true), "{}", pattern);
        prop_assert_eq!(matches(&pattern, 0, &other), Some(text == other));
    }
}
