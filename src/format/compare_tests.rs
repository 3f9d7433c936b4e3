use super::*;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn items(ends: bool) -> Chunk {
    let items = vec![(b("b"), b("2")), (b("c"), b(""))];
    let content = Content::Items { after: b("a"), through: b("d"), items };
    Chunk { id: 3, file: FileId(4), at: Seq(80), until: Seq(80), content, ends }
}

fn volume(runs: Vec<(u64, Bytes)>) -> Content {
    Content::Blocks { offset: 0, len: 1 << 20, runs }
}

fn asks() -> Vec<Ask> {
    let ask = |what, span| Ask { id: 7, at: Seq(0), file: FileId(4), what, most: 1 << 20, span };
    vec![
        ask(What::Digest, Span::Items { after: b("k"), through: b("") }),
        ask(What::Details, Span::Items { after: b(""), through: b("m") }),
        ask(What::Content, Span::Blocks { offset: 4096, len: 8192 }),
        ask(What::Digest, Span::Behind(6)),
    ]
}

fn answers() -> Vec<Answer> {
    let answer = |found| Answer { id: 7, at: Seq(130), found };
    let content = items(false).content;
    vec![
        answer(Found::Gone),
        answer(Found::Digest(digest(&content, Some(b("c"))))),
        answer(Found::Details(details(&content, None))),
        answer(Found::Content(items(false))),
        answer(Found::Unread),
        answer(Found::Over),
    ]
}

fn certificate() -> Certificate {
    let difference = |kind, repaired, part: &str| Difference {
        kind,
        repaired,
        at: Seq(131),
        file: "app,orders".to_owned(),
        part: part.to_owned(),
    };
    Certificate {
        whole: true,
        repair: true,
        began_ms: 1_700_000_000_000,
        ended_ms: 1_700_000_001_500,
        from: Seq(130),
        to: Seq(140),
        ranges: 9,
        items: 1000,
        bytes: 1 << 20,
        differing: 2,
        repaired: 1,
        passed: 1,
        unread: 0,
        digest: [9; 32],
        what: "app,orders".to_owned(),
        why: String::new(),
        named: vec![difference(Kind::Changed, true, "1001"), difference(Kind::Passed, false, "1 to 9")],
    }
}

fn order() -> Order {
    Order { stop: false, repair: true, dry_run: false, rate: None, name: "app,orders".to_owned() }
}

fn all() -> Vec<Vec<u8>> {
    let mark = Mark { id: 7, at: Seq(130), span: Span::Items { after: b("k"), through: b("") } };
    let report = Report { running: true, done: 5, total: 9, certificate: certificate() };
    let mut all: Vec<Vec<u8>> = asks().iter().map(|ask| [vec![0], ask.encode()].concat()).collect();
    all.push([vec![1], mark.encode()].concat());
    all.extend(answers().iter().map(|answer| [vec![2], answer.encode()].concat()));
    all.push([vec![3], order().encode()].concat());
    all.push([vec![4], report.encode()].concat());
    all.push([vec![5], certificate().encode()].concat());
    all
}

#[test]
fn all_that_a_compare_says_reads_back_and_no_cut_or_change_of_it_panics() {
    for ask in asks() {
        assert_eq!(Ask::decode(&ask.encode().into()), Ok(ask));
    }
    for answer in answers() {
        assert_eq!(Answer::decode(&answer.encode().into()), Ok(answer));
    }
    assert_eq!(Certificate::decode(&certificate().encode()), Ok(certificate()));
    let report = Report { running: true, done: 5, total: 9, certificate: certificate() };
    assert_eq!(Report::decode(&report.encode()), Ok(report));
    for order in [order(), Order { stop: true, rate: Some(0), ..order() }] {
        assert_eq!(Order::decode(&order.encode()), Ok(order));
    }
    for bytes in all() {
        fuzz_compare(&bytes);
        for cut in 0..bytes.len().min(300) {
            fuzz_compare(&bytes[..cut]);
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[cut] ^= 1 << bit;
                fuzz_compare(&other);
            }
        }
    }
}

#[test]
fn the_golden_compare_is_byte_for_byte_what_this_version_sends_and_keeps() {
    let golden = include_bytes!("../../tests/data/compare-v1.bin");
    let found: Vec<u8> = all()
        .iter()
        .flat_map(|bytes| [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat())
        .collect();
    assert!(found == golden, "it differs: {}", hex(&found));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_digest_is_of_ids_and_values_in_order_and_of_blocks_that_are_not_zeros() {
    let found = digest(&items(true).content, None);
    let by_hand = [&[1, 1, 0, b'b', 1, 0, 0, 0, b'2'][..], &[1, 0, b'c', 0, 0, 0, 0]].concat();
    assert_eq!(found.hash, *blake3::hash(&by_hand).as_bytes());
    assert_eq!((found.count, found.bytes), (2, 3));
    assert_eq!(hex(&found.hash), GOLDEN_ITEMS);
    // The border between id and value, and between items, is part of it.
    let other = |items: &[(&'static str, &'static str)]| {
        let items = items.iter().map(|(id, value)| (b(id), b(value))).collect();
        digest(&Content::Items { after: b("a"), through: b("d"), items }, None).hash
    };
    assert_eq!(other(&[("b", "2"), ("c", "")]), found.hash);
    for changed in [&[("b2", ""), ("c", "")][..], &[("b", "2c")], &[("b", "2")], &[("c", ""), ("b", "2")]] {
        assert_ne!(other(changed), found.hash, "{changed:?}");
    }

    let ones = Bytes::from(vec![1; BLOCK]);
    let two = digest(&volume(vec![(4096, ones.clone()), (12288, ones.clone())]), None);
    let by_hand = [&[2][..], &4096_u64.to_le_bytes(), &ones, &12288_u64.to_le_bytes(), &ones].concat();
    assert_eq!(two.hash, *blake3::hash(&by_hand).as_bytes());
    assert_eq!((two.count, two.bytes), (2, 8192));
    assert_eq!(hex(&two.hash), GOLDEN_BLOCKS);
    // However the blocks are cut into runs, and whether zeros are told.
    let zeros = Bytes::from(vec![0; BLOCK]);
    let long = [&ones[..], &zeros, &ones].concat();
    for runs in
        [vec![(4096, Bytes::from(long))], vec![(0, zeros), (4096, ones.clone()), (12288, ones.clone())]]
    {
        assert_eq!(digest(&volume(runs), None), two);
    }
    assert_ne!(digest(&volume(vec![(4096, ones.clone()), (8192, ones)]), None).hash, two.hash);
    assert_ne!(digest(&volume(Vec::new()), None).hash, digest(&items(true).content, None).hash);
}

const GOLDEN_ITEMS: &str = "1d5f5a4c7d8c35574cac5b2adf98db7e48b253ee5af3c4b9f2148a54368eb0ef";
const GOLDEN_BLOCKS: &str = "82c7aa9141d27bfb65123bf375fa7d9fcd7dbd9d8bc8917f7b45caaa9c823dbf";

#[test]
fn long_content_digests_to_the_hash_of_all_of_it() {
    let sizes = [1, 65_529, 65_530, 0, 65_535, 65_536, 65_537, 200_000, 3];
    let items: Vec<_> = sizes.iter().map(|size| (b("i"), Bytes::from(vec![7; *size]))).collect();
    let mut all = vec![1];
    for (id, value) in &items {
        all.extend_from_slice(&[1, 0]);
        all.extend_from_slice(id);
        all.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        all.extend_from_slice(value);
    }
    let found = digest(&Content::Items { after: b("a"), through: b("z"), items }, None);
    assert_eq!(found.hash, *blake3::hash(&all).as_bytes());
}

#[test]
fn a_look_says_how_far_it_came_unless_it_saw_all_that_was_wanted() {
    let span = |through| Span::Items { after: b("a"), through: b(through) };
    let came = |ends, through| match Found::of(items(ends), &span(through), What::Digest) {
        Found::Digest(digest) => digest.reached,
        other => panic!("{other:?}"),
    };
    assert_eq!(came(true, ""), None);
    assert_eq!(came(false, ""), Some(b("d")));
    assert_eq!(came(false, "x"), Some(b("d")));
    assert_eq!(came(false, "d"), None);
    let gone = Chunk { content: Content::Gone, ..items(true) };
    assert_eq!(Found::of(gone, &span(""), What::Details), Found::Gone);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let told = |ask: Ask| Ask::decode(&ask.encode().into()).unwrap_err().to_string();
    let with = |span| Ask { span, ..asks().remove(0) };
    assert!(told(with(Span::Items { after: b("k"), through: b("k") })).contains("end of a span"));
    for (offset, len) in [(1, 4096), (0, 4095), (0, 0), (0, (1 << 40) + 4096)] {
        assert!(told(with(Span::Blocks { offset, len })).contains("blocks of a span"), "{offset} {len}");
    }
    let mut parts = details(&items(true).content, None);
    parts.parts.reverse();
    let answer = Answer { id: 1, at: Seq(1), found: Found::Details(parts) };
    assert!(Answer::decode(&answer.encode().into()).unwrap_err().to_string().contains("order of details"));
    let good = certificate().encode();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Certificate::decode(&bad).is_err(), "bit {bit} went unnoticed");
    }
}

#[test]
fn lines_of_a_listing_are_named_apart_and_read_back() {
    let lines: Vec<Vec<u8>> =
        [&b"b"[..], b"a", b"b", &[b'x'; 300], &[[b'x'; 300].as_slice(), b"y"].concat(), b""]
            .into_iter()
            .map(<[u8]>::to_vec)
            .collect();
    let found = listed(&lines).unwrap();
    let names: Vec<&[u8]> = found.parts.iter().map(|(name, _)| line_of(name)).collect();
    assert_eq!(names, [&b""[..], b"a", b"b", b"b", &[b'x'; 240], &[b'x'; 240]]);
    assert_ne!(found.parts[4].1, found.parts[5].1, "of a long line all counts");
    let answer = Answer { id: 7, at: Seq(130), found: Found::Details(found) };
    assert_eq!(Answer::decode(&answer.encode().into()), Ok(answer));
    let span = Span::Query(b("KEYS *"));
    let ask = Ask { id: 7, at: Seq(0), file: QUERY, what: What::Details, most: 1 << 20, span };
    assert_eq!(Ask::decode(&ask.encode().into()), Ok(ask.clone()));
    let bytes = ask.encode();
    assert_eq!(bytes[29..], *b"\x04\x06\x00KEYS *", "as it stands in the head of the module");
    assert!(listed(&vec![Vec::new(); 50_001]).is_none());
}
