//! Maps an image of one shape to an image of another.

use schemars::JsonSchema;
use serde::Deserialize;

/// Handling of an image whose proportions differ from `width` x `height`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Fit {
    /// Stretches the image to exactly this size.
    #[default]
    Stretch,
    /// Keeps the proportions and fits the image within this size.
    Contain,
    /// Keeps the proportions and fills this size, cropping the overhang equally on both sides.
    Cover,
}

/// The crop and the new size of an upright image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Size of the part to keep, in the middle of the image.
    pub(super) part: (u32, u32),
    /// Size of that part after resizing.
    pub(super) new: (u32, u32),
}

impl Fit {
    /// Plans the way from the upright size `old` to `(width, height)`.
    pub(super) fn plan(self, old: (u32, u32), (width, height): (u32, u32)) -> Plan {
        let whole = Plan { part: old, new: (width, height) };
        // Whether the aspect ratio of the image is larger than that of the new size.
        let wider = u64::from(old.0) * u64::from(height) > u64::from(old.1) * u64::from(width);
        match self {
            Self::Stretch => whole,
            Self::Contain if wider => Plan { new: (width, scaled(old.1, width, old.0)), ..whole },
            Self::Contain => Plan { new: (scaled(old.0, height, old.1), height), ..whole },
            Self::Cover if wider => Plan { part: (scaled(width, old.1, height), old.1), ..whole },
            Self::Cover => Plan { part: (old.0, scaled(height, old.0, width)), ..whole },
        }
    }
}

/// `side * by / of`, rounded, at least 1. In [`Fit::plan`] never above the side that it replaces.
fn scaled(side: u32, by: u32, of: u32) -> u32 {
    let scaled = (u64::from(side) * u64::from(by) + u64::from(of) / 2) / u64::from(of);
    u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn proportions_are_kept_by_a_smaller_image_or_by_cutting() {
        let plan = |part, new| Plan { part, new };
        assert_eq!(Fit::Stretch.plan((400, 200), (100, 100)), plan((400, 200), (100, 100)));
        assert_eq!(Fit::Contain.plan((400, 200), (100, 100)), plan((400, 200), (100, 50)));
        assert_eq!(Fit::Contain.plan((20, 40), (100, 100)), plan((20, 40), (50, 100)));
        assert_eq!(Fit::Cover.plan((400, 200), (100, 100)), plan((200, 200), (100, 100)));
        assert_eq!(Fit::Cover.plan((20, 40), (100, 50)), plan((20, 10), (100, 50)));
        assert_eq!(Fit::Contain.plan((60_000, 1), (100, 100)), plan((60_000, 1), (100, 1)));
    }

    proptest! {
        #[test]
        fn no_side_is_larger_than_it_may_be(
            old in (1..=65_535_u32, 1..=65_535_u32),
            new in (1..=65_535_u32, 1..=65_535_u32),
        ) {
            for fit in [Fit::Stretch, Fit::Contain, Fit::Cover] {
                let Plan { part, new: made } = fit.plan(old, new);
                prop_assert!(1 <= part.0 && part.0 <= old.0 && 1 <= part.1 && part.1 <= old.1);
                prop_assert!(1 <= made.0 && made.0 <= new.0 && 1 <= made.1 && made.1 <= new.1);
                let exact = fit != Fit::Contain;
                prop_assert!(made == new || !exact);
            }
        }
    }
}
