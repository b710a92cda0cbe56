//! Who points where: one node for each shadow entry, exact in both directions. Owns the storage of I6 and I7.
//!
//! Node `page * 512 + slot` belongs to that entry. While the entry is present its node is in exactly one doubly linked list: a
//! leaf's in the reverse map of the guest frame it maps, a large leaf's in that of its block (`huge`), a table entry's in the parents of
//! the page it names. Adding and
//! removing are a few instructions and never depend on the length of a list.

use alloc::vec;
use alloc::vec::Vec;

use crate::stop::Broken;

/// No index.
pub(crate) const NIL: u32 = u32::MAX;

/// Marks the target of a large leaf: the number of a block. No page's index is that large.
pub(crate) const BLOCK: u32 = 1 << 31;

/// Entries of a shadow page.
pub(crate) const SLOTS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    next: u32,
    prev: u32,
    /// Guest frame number of a leaf, page index of a table entry; of a large leaf [`BLOCK`] and the number of its block.
    target: u32,
}

/// All nodes of a pool.
#[derive(Debug)]
pub(crate) struct Links {
    nodes: Vec<Node>,
}

/// The node of an entry.
#[inline]
pub(crate) const fn node_of(page: u32, slot: usize) -> u32 {
    page << 9 | (slot & 511) as u32
}

/// The page of a node.
#[inline]
pub(crate) const fn page_of(node: u32) -> u32 {
    node >> 9
}

/// The slot of a node.
#[inline]
pub(crate) const fn slot_of(node: u32) -> usize {
    (node & 511) as usize
}

impl Links {
    pub(crate) fn new(pages: usize) -> Self {
        Self { nodes: vec![Node { next: NIL, prev: NIL, target: NIL }; pages.saturating_mul(SLOTS)] }
    }

    #[inline]
    fn get(&self, node: u32) -> Result<&Node, Broken> {
        self.nodes.get(node as usize).ok_or(Broken(6))
    }

    #[inline]
    fn get_mut(&mut self, node: u32) -> Result<&mut Node, Broken> {
        self.nodes.get_mut(node as usize).ok_or(Broken(6))
    }

    /// What the entry of `node` points to.
    #[inline]
    pub(crate) fn target(&self, node: u32) -> Result<u32, Broken> {
        Ok(self.get(node)?.target)
    }

    /// The node after `node` in its list, or [`NIL`].
    #[inline]
    pub(crate) fn next(&self, node: u32) -> Result<u32, Broken> {
        Ok(self.get(node)?.next)
    }

    /// Puts `node`, now pointing to `target`, in front of the list.
    #[inline]
    pub(crate) fn insert(&mut self, head: &mut u32, node: u32, target: u32) -> Result<(), Broken> {
        let first = *head;
        *self.get_mut(node)? = Node { next: first, prev: NIL, target };
        if first != NIL {
            self.get_mut(first)?.prev = node;
        }
        *head = node;
        Ok(())
    }

    /// Takes `node` out of the list of `head`.
    #[inline]
    pub(crate) fn remove(&mut self, head: &mut u32, node: u32) -> Result<(), Broken> {
        let Node { next, prev, .. } = *self.get(node)?;
        if next != NIL {
            self.get_mut(next)?.prev = prev;
        }
        if prev == NIL {
            *head = next;
        } else {
            self.get_mut(prev)?.next = next;
        }
        Ok(())
    }

    /// The nodes of a list, in order; ends early if the list is damaged.
    pub(crate) fn iter(&self, head: u32) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors((head != NIL).then_some(head), |&node| self.next(node).ok().filter(|&next| next != NIL))
            .take(self.nodes.len())
    }

    /// Breaks a node on purpose.
    #[cfg(test)]
    pub(crate) fn corrupt(&mut self, node: u32, target: u32) {
        self.nodes[node as usize].target = target;
    }
}
