//! Gives back what only the start needed: a node lives for months and spends most of them asleep.

use std::ffi::{c_int, c_void};

/// Returns free memory to the system and unmaps the program's code; what still runs is mapped again when it is used.
/// Costs about a millisecond, and some microseconds in what follows.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the callback has the type that is asked for and uses no data.
    unsafe { libc::dl_iterate_phdr(Some(forget_code), std::ptr::null_mut()) };
}

/// Called for each loaded object, the program itself first; ends the iteration there.
unsafe extern "C" fn forget_code(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the loader's own, valid during the call.
    let headers = unsafe {
        let info = &*info;
        (
            info.dlpi_addr as usize,
            std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()),
        )
    };
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize;
    let (base, headers) = headers;
    for header in headers {
        // Only what was never written: its pages come from the file whenever they are touched.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = base + header.p_vaddr as usize;
        let first = start & !(page - 1);
        let length = start + header.p_memsz as usize - first;
        let first = first as *mut c_void;
        // Advice: where it is not taken, nothing is lost but the memory.
        // SAFETY: a mapping of the program's own file, private and read-only.
        unsafe {
            libc::madvise(first, length, libc::MADV_DONTNEED);
        }
    }
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_goes_on_with_less_code_in_memory() {
        let code = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = code();
        super::give_back();
        let after = code();
        assert!(after < before, "{before} KiB, then {after} KiB");
    }
}
