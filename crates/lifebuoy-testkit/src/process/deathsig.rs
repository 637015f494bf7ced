//! Ties a child's life to ours, and sends signals. The only unsafe code of
//! the workspace; it never touches memory that safe code can see.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives the child a process group of its own, and lets the kernel kill it
/// when the thread that starts it ends, however it ends.
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let before_exec = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG reads one integer argument and
        // changes an attribute of the calling process only.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died between fork and prctl: the signal would
        // then never come.
        // SAFETY: getppid has no arguments and cannot fail.
        if unsafe { libc::getppid() }.cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec, where only
    // async-signal-safe calls are allowed. It makes two plain system calls,
    // takes no lock and allocates nothing (both io::Error constructors used
    // keep a bare number).
    unsafe { command.pre_exec(before_exec) };
}

/// Sends a signal to one process.
pub(super) fn send(pid: u32, signal: libc::c_int) -> io::Result<()> {
    send_raw(pid.cast_signed(), signal)
}

/// Sends a signal to the process group led by `pid`.
pub(super) fn send_to_group(pid: u32, signal: libc::c_int) -> io::Result<()> {
    send_raw(-pid.cast_signed(), signal)
}

fn send_raw(target: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // 0 and -1 address our own group and everyone: no child has such an id.
    if target == 0 || target == -1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: kill takes two integers and touches no memory of ours.
    match unsafe { libc::kill(target, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
