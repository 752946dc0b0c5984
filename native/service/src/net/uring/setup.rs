//! Rings, and whether this kernel has what the loop needs of them.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::{BUFFER_GROUP, COMPLETIONS};
use crate::net::buffer_ring::BufferRing;

/// Sets up a ring with what the kernel grants: completions run only in our own waits on kernels
/// from 6.1, and a flag tells that there are some.
pub(super) fn build_ring(submissions: u32) -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(COMPLETIONS)
        .build(submissions);
    let cooperative = |_| {
        IoUring::builder()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(submissions)
    };
    let plain = |_| {
        IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .build(submissions)
    };
    deferred.or_else(cooperative).or_else(plain)
}

/// Tries what the loop needs: a ring, provided buffers, and a multishot receive over a socket pair.
pub(in crate::net) fn probe() -> Result<(), String> {
    // On a thread of its own: the kernel tears a ring down through the thread that made it, and
    // interrupts its next system call for that.
    let attempt = std::thread::Builder::new()
        .name("io_uring-probe".into())
        .spawn(try_out);
    match attempt.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err("trying it out panicked".into()),
        Err(error) => Err(format!("starting a thread to try it out: {error}")),
    }
}

fn try_out() -> Result<(), String> {
    let step = |name: &'static str| move |error: io::Error| format!("{name}: {error}");
    let mut ring = build_ring(8).map_err(step("setting up a ring"))?;
    if !ring.params().is_feature_ext_arg() {
        return Err("waits cannot have a timeout (before Linux 5.11)".into());
    }
    let buffers = BufferRing::register(&ring, BUFFER_GROUP).map_err(step("registering buffers"))?;
    let (source, target) =
        std::os::unix::net::UnixStream::pair().map_err(step("making a socket pair"))?;
    let receive = opcode::RecvMulti::new(Fd(target.as_raw_fd()), BUFFER_GROUP).build();
    // SAFETY: `target` and `buffers` outlive the operation: its last completion is awaited below.
    unsafe {
        ring.submission()
            .push(&receive)
            .expect("the queue is empty")
    };
    let wait = |ring: &IoUring| {
        let time = Timespec::new().sec(1);
        ring.submitter()
            .submit_with_args(1, &SubmitArgs::new().timespec(&time))
    };
    io::Write::write_all(&mut &source, b"?").map_err(step("writing to a socket pair"))?;
    wait(&ring).map_err(step("waiting"))?;
    let first = ring
        .completion()
        .next()
        .map(|completion| (completion.result(), completion.flags()));
    let granted = matches!(first, Some((1, flags)) if cqueue::more(flags));
    // The other end's close ends the receive, if it is still there.
    drop(source);
    let mut ended = first.is_some_and(|(_, flags)| !cqueue::more(flags));
    while !ended {
        if let Err(error) = wait(&ring) {
            // The receive may still be there: its buffers must not go.
            std::mem::forget(buffers);
            return Err(format!("waiting for the end of a receive: {error}"));
        }
        ended = ring
            .completion()
            .any(|completion| !cqueue::more(completion.flags()));
    }
    drop(ring);
    drop(buffers);
    match (granted, first) {
        (true, _) => Ok(()),
        (false, Some((result, _))) if result < 0 => Err(format!(
            "multishot receive: {}",
            io::Error::from_raw_os_error(-result)
        )),
        (false, _) => Err("multishot receive does not stay armed (before Linux 6.0)".into()),
    }
}
