//! Estimates what allocations really cost: the allocator adds overhead to each, so a thousand
//! messages of one byte take far more than a thousand bytes.

/// The allocator's bookkeeping for each allocation.
const HEADER: usize = 8;
/// Allocation sizes are multiples of this.
const ALIGNMENT: usize = 16;
/// The smallest allocation.
const MIN: usize = 32;

/// The cost of an allocation of this many bytes.
#[must_use]
pub const fn cost(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let whole = (bytes + HEADER).next_multiple_of(ALIGNMENT);
    if whole < MIN { MIN } else { whole }
}

/// The cost of a table of this capacity, without what its entries own.
#[must_use]
pub const fn table<T>(capacity: usize) -> usize {
    cost(capacity * size_of::<T>())
}

/// The cost of one entry in a B-tree, whose nodes are two thirds full on average.
#[must_use]
pub const fn tree_entry<T>() -> usize {
    size_of::<T>() + size_of::<T>() / 2 + ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_costs_more_than_a_byte() {
        let costs = [0, 1, 24, 25, 40, 1000].map(cost);
        assert_eq!(costs, [0, 32, 32, 48, 48, 1008]);
        assert_eq!(table::<u64>(3), 32);
        assert_eq!(tree_entry::<u64>(), 28);
    }
}
