//! When the machine's wall clock is set (by hand, by NTP in a step, after a suspend), so that times of the day are
//! computed anew.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer that never expires and is cancelled by every step of `CLOCK_REALTIME` (`man 2 timerfd_create`).
#[derive(Debug)]
pub struct WallClock {
    timer: AsyncFd<Timer>,
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl WallClock {
    /// Watches from now on; needs the runtime around it.
    ///
    /// # Errors
    /// Where the kernel, or what stands in for it, has no such timer.
    pub fn watch() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        arm(&timer)?;
        // SAFETY: the descriptor stays open and the same for as long as the timer lives.
        let timer = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) };
        Ok(Self { timer: timer.map_err(io::Error::from)? })
    }

    /// Waits until the clock was set.
    ///
    /// # Errors
    /// When it can be watched no longer.
    pub async fn was_set(&self) -> io::Result<()> {
        loop {
            let mut guard = self.timer.readable().await?;
            let read = guard.try_io(|timer| timer.get_ref().0.wait().map_err(Into::into));
            if let Ok(cancelled) = read {
                cancelled?;
                return arm(&self.timer.get_ref().0);
            }
        }
    }
}

fn arm(timer: &TimerFd) -> io::Result<()> {
    let never = Expiration::OneShot(TimeSpec::new(libc::time_t::MAX, 0));
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    Ok(timer.set(never, flags)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_clock_that_nobody_sets_says_nothing() {
        let clock = WallClock::watch().unwrap();
        let set = tokio::time::timeout(Duration::from_millis(50), clock.was_set()).await;
        assert!(set.is_err(), "{set:?}");
    }
}
