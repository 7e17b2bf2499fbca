//! Order and cost of outgoing bytes.

use super::*;

/// Wherever a short write cuts the output, the rest comes out complete and in order.
#[test]
fn any_cut_keeps_the_order() {
    let shared: Vec<u8> = (0..100).collect();
    let make = |blocks: &mut Blocks| {
        let mut out = Out::default();
        out.bytes.extend_from_slice(b"one ");
        out.share(10..20);
        let mut block = blocks.take(10);
        blocks.append(&mut block, b"three");
        block.prepend(b"<2>");
        out.give(block);
        out.bytes.extend_from_slice(b" four");
        out
    };
    let mut blocks = Blocks::default();
    let whole: Vec<u8> = make(&mut blocks).slices(&shared).flatten().copied().collect();
    for taken in 0..=whole.len() {
        let mut out = make(&mut blocks);
        let mut outbox = Outbox::default();
        outbox.keep(&mut out, &shared, taken, &mut blocks, 0);
        assert_eq!(outbox.len(), whole.len() - taken);
        let mut rest = Vec::new();
        while !outbox.is_empty() {
            rest.push(outbox.unsent()[0]);
            outbox.sent(1, &mut blocks, 0);
        }
        assert_eq!(rest, whole[taken..], "taken {taken}");
    }
}

/// The outbox kept every byte ever queued as long as it never became empty.
#[test]
fn sent_bytes_cost_nothing_though_the_outbox_is_never_empty() {
    let (mut outbox, mut blocks) = (Outbox::default(), Blocks::default());
    for _ in 0..10_000 {
        let mut out = Out::default();
        out.bytes.extend_from_slice(&[0; 1000]);
        outbox.keep(&mut out, &[], 0, &mut blocks, 0);
        let n = outbox.unsent().len().min(1000);
        if outbox.len() > 50_000 {
            outbox.sent(n, &mut blocks, 0);
        }
        assert!(outbox.cost() <= outbox.len() + 3 * CHUNK_MAX, "{} bytes", outbox.cost());
    }
    while !outbox.is_empty() {
        outbox.sent(outbox.unsent().len(), &mut blocks, 0);
    }
    assert_eq!(outbox.cost(), 0);
}

#[test]
fn a_reused_map_costs_its_touched_pages() {
    let mut blocks = Blocks::default();
    let mut block = blocks.take(2 * MAP_MIN);
    blocks.append(&mut block, &vec![1; MAP_MIN]);
    blocks.give_back(block, 0);
    assert_eq!(blocks.idle_bytes(), MAP_MIN + HEADROOM);
    assert!(blocks.take(2 * MAP_MIN).cost() >= MAP_MIN);
    assert_eq!((blocks.idle_bytes(), blocks.take(2 * MAP_MIN).cost()), (0, 4096));
}

/// A few kilobytes took a map of which an earlier message had touched 300, and cost as much.
#[test]
fn a_small_message_takes_no_map_that_is_largely_touched() {
    let mut blocks = Blocks::default();
    let mut block = blocks.take(3 * MAP_MIN);
    blocks.append(&mut block, &vec![1; 3 * MAP_MIN]);
    blocks.give_back(block, 0);
    assert!(blocks.with(&[1; 5000]).cost() <= 8192);
    assert!(blocks.take(3 * MAP_MIN).cost() >= 3 * MAP_MIN, "a large one takes it");
}

#[test]
fn a_block_grows_with_what_arrives() {
    let mut blocks = Blocks::default();
    let mut block = blocks.take(10);
    let mut want = Vec::new();
    for i in 0..400_u32 {
        let bytes = vec![i.to_le_bytes()[0]; 1000];
        blocks.append(&mut block, &bytes);
        want.extend_from_slice(&bytes);
    }
    assert_eq!(block.bytes(), want);
    assert!(block.cost() < 2 * want.len());
}

#[test]
fn idle_maps_are_given_back() {
    let mut blocks = Blocks::default();
    let block = blocks.take(MAP_MIN);
    blocks.give_back(block, 5);
    assert_eq!(blocks.next_deadline(), Some(5 + MAP_KEPT_NS));
    blocks.fire(5 + MAP_KEPT_NS);
    assert_eq!(blocks.next_deadline(), None);
}
