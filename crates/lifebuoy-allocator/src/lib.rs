//! Bounds the memory that the C library's allocator keeps. All unsafe code of the
//! project is the one call in here.

/// Lets glibc have `arenas` pools of memory, and no longer eight for each core. What one
/// pool has free no other can use: threads that each work on some megabytes at a time
/// otherwise keep three times of what is in use at one time.
///
/// Call it first in `main`: pools that exist stay. Does nothing with other C libraries.
pub fn limit_arenas(arenas: std::num::NonZeroUsize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let arenas = libc::c_int::try_from(arenas.get()).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt takes two numbers and touches no memory of ours. glibc lets any
        // thread call it at any time (mallopt(3)).
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = arenas;
}
