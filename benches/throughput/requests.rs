//! Requests of the load, built before the clock starts.

use std::ops::Range;

/// An endless sequence of requests.
#[derive(Clone, Debug)]
pub(crate) enum Requests {
    /// The same request each time.
    Same(Vec<u8>),
    /// Random ids at a fixed place in the request.
    RandomIds {
        bytes: Vec<u8>,
        place: Range<usize>,
        /// Id of a number below `count`.
        id: fn(u64) -> String,
        count: u64,
        random: Random,
    },
}

impl Requests {
    /// The same kind of requests in a different order.
    pub(crate) fn for_connection(&self, index: usize) -> Self {
        let mut requests = self.clone();
        if let Self::RandomIds { random, .. } = &mut requests {
            *random = Random::new(index as u64);
        }
        requests
    }

    pub(crate) fn next(&mut self) -> &[u8] {
        match self {
            Self::Same(bytes) => bytes,
            Self::RandomIds { bytes, place, id, count, random } => {
                bytes[place.clone()].copy_from_slice(id(random.below(*count)).as_bytes());
                bytes
            }
        }
    }
}

/// The same random numbers in every run (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Random number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
