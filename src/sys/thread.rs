//! The calling thread's share of the processor.

use std::time::Duration;

/// Processor time that the calling thread has used since it began, in its own code and in the kernel for it.
///
/// # Errors
/// The error of clock_gettime(2).
pub fn processor_time() -> std::io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec to the place given, which is ours and lives through the call; with
    // CLOCK_THREAD_CPUTIME_ID it reads the calling thread's own clock.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let whole = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(Duration::from_secs(whole(time.tv_sec)) + Duration::from_nanos(whole(time.tv_nsec)))
}

/// Lets the calling thread, and those it starts from now on, give way to others: `steps` of niceness, 0 to 19.
///
/// # Errors
/// The error of setpriority(2).
pub fn give_way(steps: i32) -> std::io::Result<()> {
    // SAFETY: setpriority(2) takes three plain numbers and touches no memory of ours; on Linux, who = 0 with
    // PRIO_PROCESS means the calling thread only (setpriority(2), "C library/kernel differences").
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, steps.clamp(0, 19)) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_gives_way_alone() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let after_name = stat.rsplit_once(')').unwrap().1.to_owned();
            after_name.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        let given = std::thread::spawn(move || {
            super::give_way(19).unwrap();
            nice()
        });
        assert_eq!(given.join().unwrap(), 19);
        assert_eq!(nice(), before);
    }
}
