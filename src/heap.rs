//! What memory costs that was asked for: an allocator adds to each allocation, and a thousand
//! messages of one byte are not a thousand bytes.

/// What an allocator keeps beside each allocation.
const HEADER: usize = 8;
/// It hands out multiples of this.
const GRAIN: usize = 16;
/// The smallest allocation there is.
const LEAST: usize = 32;

/// What an allocation of so many bytes costs; none for none.
#[must_use]
pub const fn cost(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let whole = (bytes + HEADER).next_multiple_of(GRAIN);
    if whole < LEAST { LEAST } else { whole }
}

/// What a table of this capacity costs, beside what its entries own.
#[must_use]
pub const fn table<T>(capacity: usize) -> usize {
    cost(capacity * size_of::<T>())
}

/// What a node of a tree costs for each entry of this size: it is two thirds full on average.
#[must_use]
pub const fn tree_entry<T>() -> usize {
    size_of::<T>() + size_of::<T>() / 2 + GRAIN
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
