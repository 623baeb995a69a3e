//! Collects into ordered maps and sets. Pure.

/// Iterators that are collected by insertion.
pub(crate) trait CollectOrdered: Iterator + Sized {
    /// Collects into a `BTreeMap` or `BTreeSet`, item by item. `Iterator::collect` sorts first, and each of 50 types would add 6 KB of
    /// sorting to the program.
    fn collect_ordered<C: Default + Extend<Self::Item>>(self) -> C {
        let mut collection = C::default();
        collection.extend(self);
        collection
    }
}

impl<I: Iterator> CollectOrdered for I {}
