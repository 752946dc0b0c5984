//! POSIX regular expressions (IEEE Std 1003.1, chapter 9), with the extensions that GNU systems have, as patterns of the
//! `regex` crate: linear in time whatever the pattern is. Text and patterns are bytes, as in the POSIX locale, and letters
//! of ASCII alone have two cases. Back-references, which no automaton has, are refused.

use perigee_wire::ResultCode;
use regex::bytes::{Regex, RegexBuilder};

mod flag {
    pub const EXTENDED: i64 = 1;
    pub const IGNORE_CASE: i64 = 2;
    /// Asks for no sub-matches: there are none anyway.
    pub const NO_SUB: i64 = 4;
    pub const NEWLINE: i64 = 8;
    pub const ALL: i64 = EXTENDED | IGNORE_CASE | NO_SUB | NEWLINE;
}

/// A pattern's length.
pub(super) const PATTERN_BYTES_MAX: usize = 8 << 10;
/// What a compiled pattern may take; more is refused.
const COMPILED_BYTES_MAX: usize = 64 << 10;
/// What a search may remember on its way.
const CACHE_BYTES_MAX: usize = 256 << 10;
/// Operators that may repeat one atom in a row, and groups within one another.
pub(super) const NESTING_MAX: usize = 100;
/// RE_DUP_MAX of GNU systems.
const REPEAT_MAX: u32 = 0x7fff;

/// PARAMETER for a pattern that is none, is too large, or needs back-references, and for unknown flags.
pub(super) fn compile_regex(pattern: &[u8], flags: i64) -> Result<Regex, ResultCode> {
    if flags & !flag::ALL != 0 || pattern.len() > PATTERN_BYTES_MAX {
        return Err(ResultCode::Parameter);
    }
    let is_newline = flags & flag::NEWLINE != 0;
    let translation = Translation {
        rest: pattern,
        is_extended: flags & flag::EXTENDED != 0,
        is_newline,
        out: String::with_capacity(pattern.len()),
        groups: 0,
        atom: Atom::None,
        is_start: true,
    };
    RegexBuilder::new(&translation.run()?)
        .unicode(false)
        .case_insensitive(flags & flag::IGNORE_CASE != 0)
        .multi_line(is_newline)
        .dot_matches_new_line(!is_newline)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .nest_limit(2 * NESTING_MAX as u32 + 10)
        .build()
        .map_err(|_| ResultCode::Parameter)
}

struct Translation<'p> {
    rest: &'p [u8],
    is_extended: bool,
    is_newline: bool,
    out: String,
    groups: usize,
    atom: Atom,
    /// At the start of the pattern, of a group or of an alternative.
    is_start: bool,
}

/// What an operator would repeat.
#[derive(Clone, Copy)]
enum Atom {
    /// Nothing: the operator is wrong, or stands for itself.
    None,
    /// What was written from here on, repeated so many times over already.
    From(usize, usize),
}

type Translated<T> = Result<T, ResultCode>;
const BAD: ResultCode = ResultCode::Parameter;

impl<'p> Translation<'p> {
    fn run(mut self) -> Translated<String> {
        let mut open = Vec::new();
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            let extended = self.is_extended;
            match byte {
                b'\\' => self.escape(&mut open)?,
                b'[' => self.bracket()?,
                b'.' => self.atom("."),
                b'(' if extended => self.open(&mut open)?,
                b')' if extended && !open.is_empty() => self.close(&mut open)?,
                b'|' if extended => self.alternative(),
                b'^' if extended || self.is_start => self.anchor('^'),
                b'$' if extended || self.ends_here() => self.anchor('$'),
                b'*' if extended || matches!(self.atom, Atom::From(..)) => self.repeat("*")?,
                b'+' if extended => self.repeat("+")?,
                b'?' if extended => self.repeat("?")?,
                b'{' if extended => self.interval()?,
                byte => self.literal(byte),
            }
        }
        if open.is_empty() {
            Ok(self.out)
        } else {
            Err(BAD)
        }
    }

    /// Whether a dollar sign of a basic pattern is at the end of what it may anchor.
    fn ends_here(&self) -> bool {
        self.rest.is_empty()
            || self.rest.starts_with(b"\\|")
            || self.groups > 0 && self.rest.starts_with(b"\\)")
    }

    fn escape(&mut self, open: &mut Vec<usize>) -> Translated<()> {
        let (&byte, rest) = self.rest.split_first().ok_or(BAD)?;
        self.rest = rest;
        let basic = !self.is_extended;
        match byte {
            b'(' if basic => self.open(open)?,
            b')' if basic => self.close(open)?,
            b'{' if basic => self.interval()?,
            b'|' if basic => self.alternative(),
            b'+' if basic => self.repeat("+")?,
            b'?' if basic => self.repeat("?")?,
            b'1'..=b'9' => return Err(BAD),
            b'w' => self.atom("\\w"),
            b'W' => self.atom("\\W"),
            b's' => self.atom("\\s"),
            b'S' => self.atom("\\S"),
            b'b' => self.assertion("\\b"),
            b'B' => self.assertion("\\B"),
            b'<' => self.assertion("\\b{start}"),
            b'>' => self.assertion("\\b{end}"),
            b'`' => self.assertion("\\A"),
            b'\'' => self.assertion("\\z"),
            byte => self.literal(byte),
        }
        Ok(())
    }

    fn atom(&mut self, written: &str) {
        self.atom = Atom::From(self.out.len(), 0);
        self.is_start = false;
        self.out.push_str(written);
    }

    fn literal(&mut self, byte: u8) {
        self.atom = Atom::From(self.out.len(), 0);
        self.is_start = false;
        write_byte(&mut self.out, byte);
    }

    fn assertion(&mut self, written: &str) {
        self.out.push_str(written);
        self.atom = Atom::None;
        self.is_start = false;
    }

    fn anchor(&mut self, anchor: char) {
        self.out.push(anchor);
        // An asterisk after an anchor stands for itself in a basic pattern, and is wrong in an extended one.
        self.atom = Atom::None;
        self.is_start = false;
    }

    fn alternative(&mut self) {
        self.out.push('|');
        self.atom = Atom::None;
        self.is_start = true;
    }

    fn open(&mut self, open: &mut Vec<usize>) -> Translated<()> {
        if open.len() == NESTING_MAX {
            return Err(BAD);
        }
        open.push(self.out.len());
        self.groups = open.len();
        self.out.push_str("(?:");
        self.atom = Atom::None;
        self.is_start = true;
        Ok(())
    }

    fn close(&mut self, open: &mut Vec<usize>) -> Translated<()> {
        let start = open.pop().ok_or(BAD)?;
        self.groups = open.len();
        self.out.push(')');
        self.atom = Atom::From(start, 0);
        self.is_start = false;
        Ok(())
    }

    fn repeat(&mut self, operator: &str) -> Translated<()> {
        let Atom::From(start, times) = self.atom else {
            return Err(BAD);
        };
        if times == NESTING_MAX {
            return Err(BAD);
        }
        if times > 0 {
            // An operator after another would make that one lazy, or possessive.
            self.out.insert_str(start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(operator);
        self.atom = Atom::From(start, times + 1);
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}` or `{,m}`, behind the brace.
    fn interval(&mut self) -> Translated<()> {
        let low = self.number()?;
        let (low, high) = if self.take(b",") {
            (low.unwrap_or(0), self.number()?)
        } else {
            let low = low.ok_or(BAD)?;
            (low, Some(low))
        };
        let end: &[u8] = if self.is_extended { b"}" } else { b"\\}" };
        if !self.take(end) || high.is_some_and(|high| high < low) {
            return Err(BAD);
        }
        let operator = match high {
            Some(high) => format!("{{{low},{high}}}"),
            None => format!("{{{low},}}"),
        };
        self.repeat(&operator)
    }

    fn number(&mut self) -> Translated<Option<u32>> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (digits, rest) = self.rest.split_at(digits);
        self.rest = rest;
        if digits.is_empty() {
            return Ok(None);
        }
        let number = digits.iter().fold(0_u32, |number, digit| {
            number
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        });
        if number > REPEAT_MAX {
            Err(BAD)
        } else {
            Ok(Some(number))
        }
    }

    fn take(&mut self, expected: &[u8]) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A bracket expression, behind its first bracket.
    fn bracket(&mut self) -> Translated<()> {
        let mut class = String::from("[");
        let is_negated = self.take(b"^");
        if is_negated {
            class.push('^');
            if self.is_newline {
                class.push_str("\\n");
            }
        }
        let mut is_first = true;
        while is_first || !self.take(b"]") {
            is_first = false;
            match self.bracket_item()? {
                Item::Class(name) => {
                    class.push_str("[:");
                    class.push_str(name);
                    class.push_str(":]");
                }
                Item::Byte(from) => {
                    write_byte(&mut class, from);
                    // A hyphen that ends the expression is itself.
                    if self.rest.starts_with(b"-") && !self.rest.starts_with(b"-]") {
                        self.take(b"-");
                        let Item::Byte(to) = self.bracket_item()? else {
                            return Err(BAD);
                        };
                        if to < from {
                            return Err(BAD);
                        }
                        class.push('-');
                        write_byte(&mut class, to);
                    }
                }
            }
        }
        class.push(']');
        self.atom(&class);
        Ok(())
    }

    fn bracket_item(&mut self) -> Translated<Item> {
        if self.take(b"[:") {
            let name = self.until(b":]")?;
            let class = CLASSES.iter().find(|class| class.as_bytes() == name);
            return class.map(|class| Item::Class(class)).ok_or(BAD);
        }
        for (start, end) in [(b"[=", b"=]"), (b"[.", b".]")] {
            if self.take(start) {
                return match self.until(end)? {
                    [byte] => Ok(Item::Byte(*byte)),
                    _ => Err(BAD),
                };
            }
        }
        let (&byte, rest) = self.rest.split_first().ok_or(BAD)?;
        self.rest = rest;
        Ok(Item::Byte(byte))
    }

    fn until(&mut self, end: &[u8]) -> Translated<&'p [u8]> {
        let at = self.rest.windows(end.len()).position(|bytes| bytes == end);
        let (name, rest) = self.rest.split_at(at.ok_or(BAD)?);
        self.rest = &rest[end.len()..];
        Ok(name)
    }
}

enum Item {
    Byte(u8),
    Class(&'static str),
}

const CLASSES: [&str; 12] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "xdigit",
];

fn write_byte(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || byte == b' ' {
        out.push(char::from(byte));
    } else {
        out.push_str(&format!("\\x{byte:02x}"));
    }
}
