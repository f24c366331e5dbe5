//! Finds the longest token that a text begins with.

use std::mem;

use super::vocabulary::NONE;

/// Marks a node from which no step leads on.
const LEAF: u32 = 1 << 31;

/// The tokens as a tree, in which a step leads from some bytes to those and one more.
///
/// A node that is a token has the token's number, the others have higher ones.
pub(super) struct Prefixes {
    /// Where a first byte leads.
    one: Box<[u32; 256]>,
    /// Where the first two bytes lead.
    two: Box<[u32]>,
    steps: Steps,
    /// Above the numbers of all tokens.
    tokens: u32,
}

impl Prefixes {
    /// `tokens` has the shorter ones first, and numbers below `limit`.
    pub(super) fn new(tokens: &[(Vec<u8>, u32)], limit: u32) -> Self {
        let mut one = Box::new([NONE; 256]);
        // There are about two steps for each token, and the table is to be half empty.
        let places = (4 * tokens.len()).next_power_of_two();
        let mut steps = Steps { table: vec![0; places], used: 0 };
        let mut nodes = limit;
        for (bytes, number) in tokens {
            let [first, inner @ .., last] = &bytes[..] else {
                bytes.iter().for_each(|&byte| one[usize::from(byte)] = *number);
                continue;
            };
            let mut node = one[usize::from(*first)];
            for &byte in inner {
                node = steps.get(node, byte).unwrap_or_else(|| {
                    nodes += 1;
                    steps.add(node, byte, nodes - 1);
                    nodes - 1
                });
            }
            // Nothing that is longer has made this step yet.
            steps.add(node, *last, *number);
        }
        steps.mark_leaves(nodes);
        let two = (0..=u16::MAX).map(|bytes| {
            let [first, second] = bytes.to_be_bytes();
            steps.get(one[usize::from(first)], second).unwrap_or(NONE)
        });
        Self { two: two.collect(), one, steps, tokens: limit }
    }

    /// The longest token that `text` begins with; `None` if there is none.
    pub(super) fn longest(&self, text: &[u8]) -> Option<u32> {
        let token = |number: u32| (number < self.tokens).then_some(number);
        let Some((&bytes, rest)) = text.split_first_chunk() else {
            return text.first().and_then(|&byte| token(self.one[usize::from(byte)]));
        };
        let mut longest = token(self.one[usize::from(bytes[0])]);
        let mut next = self.two_bytes(bytes);
        let mut rest = rest.iter();
        while next != NONE {
            let node = next & !LEAF;
            longest = token(node).or(longest);
            next = match rest.next() {
                Some(&byte) if next & LEAF == 0 => self.steps.get(node, byte).unwrap_or(NONE),
                _ => NONE,
            };
        }
        longest
    }

    /// The token of two bytes, or [`NONE`].
    pub(super) fn pair(&self, bytes: [u8; 2]) -> u32 {
        let node = self.two_bytes(bytes) & !LEAF;
        if node < self.tokens { node } else { NONE }
    }

    fn two_bytes(&self, bytes: [u8; 2]) -> u32 {
        self.two[usize::from(u16::from_be_bytes(bytes))]
    }
}

/// The steps of the tree as a hash table with open addressing. Each has a node and a byte in its
/// upper half, and where they lead in its lower half; 0 is a free place, as no step leads from the
/// first token to itself.
struct Steps {
    table: Vec<u64>,
    used: usize,
}

impl Steps {
    fn get(&self, node: u32, byte: u8) -> Option<u32> {
        let key = key(node, byte);
        let mut place = self.place(key);
        loop {
            let step = self.table[place];
            if step == 0 {
                return None;
            }
            if step >> 32 == key {
                return Some(step as u32);
            }
            place = (place + 1) & (self.table.len() - 1);
        }
    }

    fn add(&mut self, node: u32, byte: u8, to: u32) {
        if self.used * 2 >= self.table.len() {
            let larger = vec![0; self.table.len() * 2];
            for step in mem::replace(&mut self.table, larger).into_iter().filter(|&step| step != 0)
            {
                self.put(step);
            }
        }
        self.used += 1;
        self.put(key(node, byte) << 32 | u64::from(to));
    }

    fn put(&mut self, step: u64) {
        let mut place = self.place(step >> 32);
        while self.table[place] != 0 {
            place = (place + 1) & (self.table.len() - 1);
        }
        self.table[place] = step;
    }

    fn mark_leaves(&mut self, nodes: u32) {
        let mut inner = vec![false; nodes as usize];
        for &step in self.table.iter().filter(|&&step| step != 0) {
            inner[(step >> 40) as usize] = true;
        }
        for step in self.table.iter_mut().filter(|step| **step != 0) {
            if !inner[*step as u32 as usize] {
                *step |= u64::from(LEAF);
            }
        }
    }

    fn place(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.table.len() - 1)
    }
}

fn key(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}
