//! A mark in every process of a run that no program takes off: its soft `RLIMIT_RTTIME`.
//!
//! The limit is inherited over fork and exec, survives `setsid`, a double fork, a change of user, a cleared environment
//! and a rewritten title, and everybody may read it in `/proc/PID/limits`. The values used here are above a hundred
//! thousand years of processor time and bind real-time tasks only, so they limit nothing. (Timer slack would do, too, but
//! only a holder of `CAP_SYS_NICE` may read another's.)

/// No real limit has this bit, and `RLIM_INFINITY` is recognised before.
const MARK: u64 = 1 << 62;
const RUN_BITS: u32 = 24;
const CLUSTER_BITS: u32 = 38;

/// The colour of one cluster; each run has a shade of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(u64);

impl Colour {
    /// The colour of the cluster with this id (the run folder's name). Two clusters share one by a
    /// chance of 1 in 2^38.
    pub fn of(cluster_id: &str) -> Self {
        // FNV-1a, 64 bits, folded.
        let hash = cluster_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self((hash ^ (hash >> CLUSTER_BITS)) & ((1 << CLUSTER_BITS) - 1))
    }

    /// A number that is the same for the same text, below 2^38.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The limit for the `number`th run, which wraps after 2^24.
    pub fn shade(self, number: u64) -> u64 {
        MARK | self.0 << RUN_BITS | number & ((1 << RUN_BITS) - 1)
    }

    /// Whether this limit is a shade of the colour.
    pub fn covers(self, limit: u64) -> bool {
        limit & MARK != 0 && limit >> 63 == 0 && (limit & !MARK) >> RUN_BITS == self.0
    }
}

/// The soft `RLIMIT_RTTIME` in the text of `/proc/PID/limits`, where it has one.
pub fn parse(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shade_belongs_to_its_colour_only() {
        let (one, two) = (Colour::of("0123456789ab"), Colour::of("0123456789ac"));
        assert_ne!(one, two);
        assert!(one.covers(one.shade(7)));
        assert!(!two.covers(one.shade(7)));
        assert_ne!(one.shade(7), one.shade(8));
        assert!(!one.covers(u64::MAX));
        assert!(!one.covers(1_000_000));
    }

    #[test]
    fn the_limit_is_read_from_the_kernels_table() {
        let text = "Max realtime priority     0   0   \nMax realtime timeout      4611686018427387911  unlimited            us        \n";
        assert_eq!(parse(text), Some(4_611_686_018_427_387_911));
        assert_eq!(parse("Max realtime timeout      unlimited  unlimited us\n"), None);
        assert_eq!(parse(""), None);
    }
}
