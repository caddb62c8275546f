//! The worker's links, each under a number that is never given again.

use std::ops::{Index, IndexMut};

use slab::Slab;

use super::link::Link;

/// Links by number. What still names a link after its end (a stream that lingers, a call whose
/// response waits for its client) must not find the one that took its place.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// In boxes: a slab gives back no room before its last link, and that may be one for long.
    slots: Slab<(usize, Box<Link>)>,
    born: usize,
    /// The slot that is looked at next.
    next: usize,
}

impl Links {
    pub(super) fn insert(&mut self, link: Link) -> usize {
        self.born += 1;
        let slot = self.slots.insert((0, Box::new(link)));
        let id = self.born << SLOT | slot;
        self.slots[slot].0 = id;
        id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn contains(&self, id: usize) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn get(&self, id: usize) -> Option<&Link> {
        self.slots.get(slot(id)).filter(|(own, _)| *own == id).map(|(_, link)| &**link)
    }

    pub(super) fn get_mut(&mut self, id: usize) -> Option<&mut Link> {
        self.slots.get_mut(slot(id)).filter(|(own, _)| *own == id).map(|(_, link)| &mut **link)
    }

    pub(super) fn try_remove(&mut self, id: usize) -> Option<Box<Link>> {
        self.get(id)?;
        self.slots.try_remove(slot(id)).map(|(_, link)| link)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Link)> {
        self.slots.iter().map(|(_, (id, link))| (*id, &**link))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Link)> {
        self.slots.iter_mut().map(|(_, (id, link))| (*id, &mut **link))
    }

    /// The next `most` slots, from the first again after the last.
    pub(super) fn next_slots(&mut self, most: usize) -> impl Iterator<Item = usize> + use<> {
        let all = self.slots.capacity();
        if self.next >= all {
            self.next = 0;
            if self.slots.len() < all / 4 {
                self.slots.shrink_to_fit();
            }
        }
        let start = self.next;
        self.next = (start + most).min(all);
        start..self.next
    }

    /// The link in a slot.
    pub(super) fn in_slot(&mut self, slot: usize) -> Option<(usize, &mut Link)> {
        self.slots.get_mut(slot).map(|(id, link)| (*id, &mut **link))
    }
}

impl Index<usize> for Links {
    type Output = Link;

    fn index(&self, id: usize) -> &Link {
        self.get(id).expect("the link is there while its task is")
    }
}

impl IndexMut<usize> for Links {
    fn index_mut(&mut self, id: usize) -> &mut Link {
        self.get_mut(id).expect("the link is there while its task is")
    }
}

fn slot(id: usize) -> usize {
    id & ((1 << SLOT) - 1)
}

/// Bits of a number that say where the link is; above them it is counted.
const SLOT: u32 = usize::BITS / 2 - 8;
