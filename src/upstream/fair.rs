//! What waits, handed out fairly: each client address in turn, and within it each connection, so
//! that who asks for much waits behind who asks for little.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): each entry has a tag, and the lowest tag is
//! next. A connection's entries lie as far apart as its address has connections that wait; a
//! connection that comes begins where the queue is.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
};

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its address, or its network.
    pub address: IpAddr,
    /// Tells the connections of one address apart.
    pub connection: usize,
}

impl Client {
    /// One whose address is not known.
    pub const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
}

/// An entry's place: the lower, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Turn {
    tag: u64,
    number: u64,
}

impl Turn {
    /// The one behind it.
    pub(super) fn after(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

/// Entries that wait, by their turns.
#[derive(Debug)]
pub struct FairQueue<T> {
    entries: BTreeMap<Turn, (Client, T)>,
    clients: HashMap<Client, Waiting>,
    /// Connections that wait, by address.
    connections: HashMap<IpAddr, u64>,
    /// The tag that was served last.
    served: u64,
    numbers: u64,
}

/// One connection's entries.
#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// The tag of the next one.
    next: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            clients: HashMap::new(),
            connections: HashMap::new(),
            served: 0,
            numbers: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds an entry behind those of its client.
    pub fn push(&mut self, client: Client, entry: T) -> Turn {
        let waiting = self.clients.entry(client).or_default();
        let connections = self.connections.entry(client.address).or_default();
        if waiting.count == 0 {
            *connections += 1;
        }
        let tag = waiting.next.max(self.served);
        waiting.count += 1;
        waiting.next = tag + *connections;
        self.numbers += 1;
        let turn = Turn { tag, number: self.numbers };
        self.entries.insert(turn, (client, entry));
        turn
    }

    /// The first entry, and the first at or after `turn`.
    pub fn from(&self, turn: Turn) -> impl Iterator<Item = (Turn, &T)> {
        self.entries.range(turn..).map(|(turn, (_, entry))| (*turn, entry))
    }

    /// All entries, in their order.
    pub fn into_entries(self) -> impl Iterator<Item = T> {
        self.entries.into_values().map(|(_, entry)| entry)
    }

    /// Whom the entries are of.
    pub fn clients(&self) -> impl Iterator<Item = Client> {
        self.clients.keys().copied()
    }

    /// Takes an entry out that waits no more.
    pub fn remove(&mut self, turn: Turn) -> Option<T> {
        let (client, entry) = self.entries.remove(&turn)?;
        let waiting = self.clients.get_mut(&client)?;
        waiting.count -= 1;
        if waiting.count == 0 {
            self.clients.remove(&client);
            if let Some(connections) = self.connections.get_mut(&client.address) {
                *connections -= 1;
                if *connections == 0 {
                    self.connections.remove(&client.address);
                }
            }
        }
        Some(entry)
    }

    /// Notes that an entry has its turn: those that come later stand behind it.
    pub fn serve(&mut self, turn: Turn) {
        self.served = self.served.max(turn.tag);
    }

    /// Takes the first entry out, which has its turn.
    pub fn pop(&mut self) -> Option<T> {
        let (turn, _) = self.entries.first_key_value()?;
        let turn = *turn;
        self.serve(turn);
        self.remove(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: u8, connection: usize) -> Client {
        Client { address: IpAddr::from([127, 0, 0, address]), connection }
    }

    fn order(queue: &mut FairQueue<char>) -> String {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn who_asks_for_much_waits_behind_who_asks_for_little() {
        let mut queue = FairQueue::default();
        (0..4).for_each(|_| _ = queue.push(client(1, 1), 'm'));
        queue.push(client(2, 2), 'l');
        assert_eq!(order(&mut queue), "mlmmm");
        assert!(queue.is_empty() && queue.clients.is_empty() && queue.connections.is_empty());
    }

    #[test]
    fn an_address_gains_nothing_by_more_connections() {
        let mut queue = FairQueue::default();
        for round in 0..3 {
            for connection in 1..=3 {
                queue.push(client(1, connection), 'm');
            }
            if round == 0 {
                (0..3).for_each(|_| _ = queue.push(client(2, 9), 'l'));
            }
        }
        let order = order(&mut queue);
        assert!(order[..6].matches('l').count() >= 2, "{order}");
        assert_eq!(order.matches('m').count(), 9);
    }

    #[test]
    fn one_that_comes_late_has_no_turns_to_make_up_for() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|_| _ = queue.push(client(1, 1), 'm'));
        (0..50).for_each(|_| assert_eq!(queue.pop(), Some('m')));
        (0..3).for_each(|_| _ = queue.push(client(2, 2), 'l'));
        assert_eq!(order(&mut queue)[..6].matches('l').count(), 3);
    }

    #[test]
    fn an_entry_that_leaves_is_not_served() {
        let mut queue = FairQueue::default();
        let turn = queue.push(client(1, 1), 'a');
        queue.push(client(1, 1), 'b');
        assert_eq!(queue.remove(turn), Some('a'));
        assert_eq!((queue.remove(turn), queue.len()), (None, 1));
        assert_eq!(queue.from(Turn::default()).count(), 1);
        assert_eq!(order(&mut queue), "b");
    }
}
