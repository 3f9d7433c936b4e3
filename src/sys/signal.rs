//! Signals as bytes on a pipe.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::{self, PipeReader};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// The pipe's end that the handler writes to; stays open for the rest of the process's life.
static NOTES: AtomicI32 = AtomicI32::new(-1);

/// Has each of `signals`, whichever thread it meets, written as a byte with its number to the pipe that is returned.
/// A later call takes over from an earlier one.
///
/// # Errors
/// Those of pipe(2), fcntl(2) and sigaction(2).
pub fn catch_signals(signals: &[Signal]) -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    // Thousands of unread signals say no more than the first; the handler must not wait.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    NOTES.store(writer.into_raw_fd(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: the handler does only what signal-safety(7) allows: an atomic load, write(2), and errno as it was.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(reader)
}

extern "C" fn note(signal: libc::c_int) {
    let errno = Errno::last_raw();
    let number = signal.to_le_bytes();
    // SAFETY: write(2) reads one byte at the pointer, which is that of a local array. The descriptor is the pipe's,
    // which is never closed; write(2) is on the list of signal-safety(7).
    let _ = unsafe { libc::write(NOTES.load(Ordering::SeqCst), number.as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;
    use std::io::Read;

    #[test]
    fn a_signal_comes_out_of_the_pipe_as_its_number() {
        let mut notes = catch_signals(&[Signal::SIGUSR2]).unwrap();
        raise(Signal::SIGUSR2).unwrap();
        let mut number = [0];
        notes.read_exact(&mut number).unwrap();
        assert_eq!(i32::from(number[0]), Signal::SIGUSR2 as i32);
    }
}
