//! Flow-control windows (RFC 9113, 5.2 and 6.9).

use super::frame::STREAM;

/// A window grew beyond 2^31 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// What may still be sent. Below zero after the peer made its windows smaller.
#[derive(Debug, Clone, Copy)]
pub struct SendWindow(i64);

impl SendWindow {
    /// Of this size.
    pub fn new(size: u32) -> Self {
        Self(size.into())
    }

    /// How many bytes may be sent.
    pub fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes a WINDOW_UPDATE, or a change of SETTINGS_INITIAL_WINDOW_SIZE.
    ///
    /// # Errors
    /// The window would be too large.
    pub fn change(&mut self, by: i64) -> Result<(), Overflow> {
        let changed = self.0 + by;
        if changed > STREAM.into() {
            return Err(Overflow);
        }
        self.0 = changed;
        Ok(())
    }

    /// Counts bytes that were sent.
    pub fn spend(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }
}

/// What the peer may still send.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveWindow {
    size: u32,
    open: u32,
    owed: u32,
}

/// The peer sent more than its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

impl ReceiveWindow {
    /// Of this size.
    pub fn new(size: u32) -> Self {
        Self { size, open: size, owed: 0 }
    }

    /// Counts bytes that came.
    ///
    /// # Errors
    /// There were more than the window allows.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Overrun> {
        let bytes = u32::try_from(bytes).map_err(|_| Overrun)?;
        self.open = self.open.checked_sub(bytes).ok_or(Overrun)?;
        Ok(())
    }

    /// Gives bytes back that came. Small amounts are held back until they are worth a frame; what
    /// is to be announced now.
    pub fn credit(&mut self, bytes: usize) -> Option<u32> {
        self.credit_up_to(bytes, self.size)
    }

    /// Gives bytes back, and widens the window to `size` with them where it is smaller.
    pub fn credit_up_to(&mut self, bytes: usize, size: u32) -> Option<u32> {
        self.owed += u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.owed < self.size / 2 {
            return None;
        }
        let more = std::mem::take(&mut self.owed) + size.saturating_sub(self.size);
        self.size = self.size.max(size);
        self.open += more;
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_below_zero_sends_nothing_until_it_has_grown() {
        let mut window = SendWindow::new(100);
        window.spend(100);
        window.change(-50).unwrap();
        assert_eq!(window.available(), 0);
        window.change(50).unwrap();
        assert_eq!(window.available(), 0);
        window.change(1).unwrap();
        assert_eq!(window.available(), 1);
        assert_eq!(window.change(i64::from(STREAM)), Err(Overflow));
    }

    #[test]
    fn a_window_widens_once_its_sender_has_had_half_of_it_back() {
        let mut window = ReceiveWindow::new(100);
        window.receive(100).unwrap();
        assert_eq!(window.credit_up_to(49, 1000), None);
        assert_eq!(window.credit_up_to(1, 1000), Some(950));
        assert_eq!((window.open, window.size), (950, 1000));
        assert_eq!(window.credit_up_to(499, 1000), None);
        assert_eq!(window.credit_up_to(1, 100), Some(500));
    }

    proptest! {
        #[test]
        fn the_peer_never_waits_with_half_a_window_credited(
            parts in prop::collection::vec(1_usize..500, 1..100),
        ) {
            let mut window = ReceiveWindow::new(1000);
            let mut peer = 1000_i64;
            for part in parts {
                prop_assert_eq!(window.receive(part).is_ok(), part as i64 <= peer);
                peer -= part as i64;
                peer += window.credit(part).map_or(0, i64::from);
                prop_assert!(peer > 500 && peer <= 1000);
            }
        }
    }
}
