//! Gives back the memory that the program's own pages take while they do not run.
//!
//! A start runs through most of the binary once (arguments, config, recovery), and the kernel maps
//! 64 KiB around each touched page: some 10 MB of program text stay resident of which an idle node
//! uses one. On a gatehouse's box that is most of what the node takes.

use std::time::Duration;

/// A second after the start, when the links and the first clients have come in, and then again and
/// again: it costs a few hundred soft page faults, far below a millisecond.
const FIRST: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_secs(10);

/// Unmaps the pages of this program's text and read-only data again and again; what runs next is
/// mapped again from the page cache, without reading the disk. Where the system does not tell its
/// mappings, nothing happens. Never ends.
pub async fn give_back() {
    let pages = mappings();
    let mut wait = FIRST;
    while !pages.is_empty() {
        unmap(&pages);
        tokio::time::sleep(std::mem::replace(&mut wait, EACH)).await;
    }
    std::future::pending().await
}

fn unmap(pages: &[(usize, usize)]) {
    #[cfg(target_os = "linux")]
    for &(start, len) in pages {
        // SAFETY: The range is a mapping of this program's own file that nothing has ever written to
        // (it is executable, or begins with the file's first byte, and is not writable), and that
        // stays mapped for the process's life. For such pages DONTNEED only drops the page table
        // entries: the next access maps the same bytes again.
        #[allow(unsafe_code, reason = "the kernel alone can give pages back; why it is sound stands above")]
        let done =
            unsafe { rustix::mm::madvise(start as *mut std::ffi::c_void, len, rustix::mm::Advice::LinuxDontNeed) };
        if let Err(error) = done {
            tracing::debug!(%error, "The program's pages stay resident.");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn mappings() -> Vec<(usize, usize)> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn mappings() -> Vec<(usize, usize)> {
    let (Ok(maps), Ok(program)) = (std::fs::read_to_string("/proc/self/maps"), std::fs::read_link("/proc/self/exe"))
    else {
        return Vec::new();
    };
    of_program(&maps, &program.to_string_lossy())
}

/// Start and length of the mappings of `program` that are never written: its text, and the read-only
/// segment at the beginning of the file. Others that are read-only now had relocations written into
/// them, which are in no file.
#[cfg(target_os = "linux")]
fn of_program(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let one = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let path = line.get(line.find('/')?..)?;
        let unwritten = rights == "r-xp" || (rights == "r--p" && offset.bytes().all(|b| b == b'0'));
        if path != program || !unwritten {
            return None;
        }
        let (from, to) = range.split_once('-')?;
        let (from, to) = (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
        Some((from, to.checked_sub(from)?))
    };
    maps.lines().filter_map(one).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_of_the_program_is_given_back() {
        let maps = "\
1000-3000 r--p 00000000 fe:00 1   /opt/city brain
3000-8000 r-xp 00002000 fe:00 1   /opt/city brain
8000-9000 r--p 00007000 fe:00 1   /opt/city brain
9000-a000 rw-p 00008000 fe:00 1   /opt/city brain
a000-b000 rw-p 00000000 00:00 0   [heap]
c000-d000 r-xp 00000000 fe:00 2   /lib/libc.so.6
nonsense
";
        assert_eq!(of_program(maps, "/opt/city brain"), [(0x1000, 0x2000), (0x3000, 0x5000)]);
        assert_eq!(of_program(maps, "/opt/city"), []);
    }

    #[test]
    fn a_program_runs_on_after_it_and_its_mappings_stay() {
        let before = mappings();
        assert!(!before.is_empty());
        unmap(&before);
        assert_eq!(mappings(), before);
    }
}
