//! How many connections each client address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};

/// Counts connections by client address, up to a bound for each.
#[derive(Debug, Clone)]
pub struct Addresses {
    most: u32,
    open: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Addresses {
    /// Without connections. No address may have more than `most`.
    pub fn new(most: u32) -> Self {
        Self { most, open: Arc::default() }
    }

    /// The same, with another bound from now on.
    pub fn with_most(self, most: u32) -> Self {
        Self { most, ..self }
    }

    /// A place for one more connection of `address`, unless it has all that it may have.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let address = client(address);
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { of: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    of: Addresses,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.lock();
        // Those that have none are forgotten, so there are never more than connections.
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = open.remove(&self.address),
        }
    }
}

/// What is taken for one client: in IPv6 a /64, all of which one has without effort.
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_gets_them_back() {
        let addresses = Addresses::new(2);
        let take = |address: &str| addresses.take(address.parse().unwrap());
        let (first, second) = (take("10.0.0.1"), take("::ffff:10.0.0.1"));
        assert!(first.is_some() && second.is_some());
        assert!(take("10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        drop(first);
        assert!(take("10.0.0.1").is_some());
        drop(second);
        assert!(addresses.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let addresses = Addresses::new(1);
        let _place = addresses.take("2001:db8::1".parse().unwrap()).unwrap();
        assert!(addresses.take("2001:db8::ffff:2".parse().unwrap()).is_none());
        assert!(addresses.take("2001:db8:0:1::1".parse().unwrap()).is_some());
    }
}
