//! Tests of the batch layout: read back as a guest would read it.

use proptest::prelude::*;
use walgate_wire::Identity;

use super::*;
use crate::{
    encode::TablePacker,
    guest::{
        exec::images::{self, OP_SNAPSHOT, collect_images},
        plan::PlanAnswer,
        test_support::{change, copied, plan, reads, table, texts},
    },
    rows::{Type, batch::Op},
};

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Null,
    Unchanged,
    Absent,
    Value(Vec<u8>),
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Flags, and the cells column by column.
fn read(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<Seen>>) {
    assert_eq!(&bytes[..4], b"WGB1");
    let (rows, columns) = (u32_at(bytes, 4), u32_at(bytes, 8));
    assert_eq!((u32_at(bytes, 12), u32_at(bytes, 20)), (0, 0));
    let flags = u32_at(bytes, 16);
    assert_eq!(flags % 8, 0);
    let column = |index: usize| {
        let entry = HEADER + index * DIRECTORY_ENTRY;
        let (states, data) = (u32_at(bytes, entry + 4), u32_at(bytes, entry + 8));
        let data_len = u32_at(bytes, entry + 12);
        assert_eq!((states % 8, data % 8), (0, 0));
        let width = [1, 8, 8, 0, 0, 16, 8, 8, 8, 0][usize::from(bytes[entry])];
        let value = |row: usize| match width {
            0 => {
                let end = |row: usize| u32_at(bytes, data + 4 * row);
                let start = data + 4 * (rows + 1);
                assert_eq!(end(0), 0);
                assert_eq!(4 * (rows + 1) + end(rows), data_len);
                bytes[start + end(row)..start + end(row + 1)].to_vec()
            }
            width => {
                assert_eq!(data_len, width * rows);
                bytes[data + row * width..data + (row + 1) * width].to_vec()
            }
        };
        let cell = |row: usize| {
            let value = value(row);
            let state = bytes[states + row];
            assert!(state == 1 || value.iter().all(|&byte| byte == 0), "empty or zero");
            [Seen::Null, Seen::Value(value), Seen::Unchanged, Seen::Absent][usize::from(state)]
                .clone()
        };
        (0..rows).map(cell).collect()
    };
    (bytes[flags..flags + rows].to_vec(), (0..columns).map(column).collect())
}

fn filled(table: &std::sync::Arc<TableVersion>, batch: &RowBatch, columns: &[&str]) -> Vec<u8> {
    let plan = plan(table, PlanAnswer { reads: reads(columns), ..PlanAnswer::default() });
    let shown = collect_images(batch, &[]);
    let mut buffer = GuestBuffer::default();
    Layout::new(&plan).fill_buffer(batch, &shown, &mut Rendered::default(), &mut buffer).unwrap();
    buffer.bytes
}

/// The value of a single row with a single column.
fn laid(ty: Type, value: &[u8]) -> Result<Vec<u8>, RowError> {
    let table = table(&[("id", Type::base(25)), ("v", ty)], Identity::Default);
    let batch = copied(&table, &[vec![Some(b"k"), Some(value)]]);
    let plan = plan(&table, PlanAnswer { reads: reads(&["v"]), ..PlanAnswer::default() });
    let shown = collect_images(&batch, &[]);
    let mut buffer = GuestBuffer::default();
    Layout::new(&plan).fill_buffer(&batch, &shown, &mut Rendered::default(), &mut buffer)?;
    match &read(&buffer.bytes).1[0][0] {
        Seen::Value(value) => Ok(value.clone()),
        other => panic!("{other:?}"),
    }
}

fn word(value: i64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

#[test]
fn values_of_each_kind() {
    let ok = |oid, value: &[u8]| laid(Type::base(oid), value).unwrap();
    assert_eq!(ok(16, &[1]), [1]);
    assert_eq!(ok(21, &(-2i16).to_be_bytes()), word(-2));
    assert_eq!(ok(23, &7i32.to_be_bytes()), word(7));
    assert_eq!(ok(26, &u32::MAX.to_be_bytes()), word(i64::from(u32::MAX)));
    assert_eq!(ok(20, &i64::MIN.to_be_bytes()), word(i64::MIN));
    assert_eq!(ok(700, &1.5f32.to_be_bytes()), 1.5f64.to_le_bytes());
    assert_eq!(ok(701, &(-0.25f64).to_be_bytes()), (-0.25f64).to_le_bytes());
    assert_eq!(ok(25, "grüß".as_bytes()), "grüß".as_bytes());
    assert_eq!(ok(17, &[0, 255]), [0, 255]);
    assert_eq!(ok(3802, b"\x01{}"), b"{}");
    assert_eq!(ok(2950, &[9; 16]), [9; 16]);
    assert_eq!(ok(1083, &5i64.to_be_bytes()), word(5));
    let numeric = [0, 2, 0, 0, 0, 0, 0, 2, 0, 12, 0x13, 0x88];
    assert_eq!(ok(1700, &numeric), b"12.50");
    let mood = Type { oid: 16_500, kind: crate::rows::Kind::Enum };
    assert_eq!(laid(mood, b"happy").unwrap(), b"happy");
    let array = Type { oid: 1009, kind: crate::rows::Kind::Array(Box::new(Type::base(25))) };
    let empty = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25];
    assert_eq!(laid(array, &empty).unwrap(), [0x90], "an empty array in MessagePack");
}

#[test]
fn times_count_from_1970_and_have_infinities() {
    let ok = |oid, value: &[u8]| laid(Type::base(oid), value).unwrap();
    assert_eq!(ok(1184, &0i64.to_be_bytes()), word(946_684_800_000_000));
    assert_eq!(ok(1114, &i64::MAX.to_be_bytes()), word(i64::MAX));
    assert_eq!(ok(1114, &i64::MIN.to_be_bytes()), word(i64::MIN));
    assert_eq!(ok(1114, &9_223_371_331_199_999_999i64.to_be_bytes()), word(i64::MAX - 1));
    assert_eq!(ok(1082, &0i32.to_be_bytes()), word(10_957));
    assert_eq!(ok(1082, &i32::MAX.to_be_bytes()), word(i64::MAX));
    assert_eq!(ok(1082, &i32::MIN.to_be_bytes()), word(i64::MIN));
}

#[test]
fn what_cannot_be_read_is_named_without_its_value() {
    let error = laid(Type::base(23), b"secret").unwrap_err();
    assert_eq!(error.source, PackError::WrongLength);
    let message = error.to_string();
    assert!(message.contains("public.t, column v (type 23)"), "{message}");
    assert!(!message.contains("secret"));
    let range = Type { oid: 3904, kind: crate::rows::Kind::Rendered };
    assert_eq!(laid(range, b"x").unwrap_err().source, PackError::NotRendered);
}

#[test]
fn printed_values_are_shown_once_they_are_known() {
    let range = Type { oid: 3904, kind: crate::rows::Kind::Rendered };
    let table = table(&[("id", Type::base(25)), ("v", range)], Identity::Default);
    let batch = copied(&table, &[vec![Some(b"k"), Some(b"xx")], vec![Some(b"l"), None]]);
    let plan = plan(&table, PlanAnswer { reads: reads(&["v"]), ..PlanAnswer::default() });
    let layout = Layout::new(&plan);
    assert!(layout.renders());
    let mut rendered = Rendered::default();
    TablePacker::new(&table).collect_server_rendered(&batch, &mut rendered).unwrap();
    assert!(!rendered.is_complete());
    rendered.insert(3904, b"xx", "[1,9)".into());
    let shown = collect_images(&batch, &[]);
    let mut buffer = GuestBuffer::default();
    layout.fill_buffer(&batch, &shown, &mut rendered, &mut buffer).unwrap();
    assert_eq!(read(&buffer.bytes).1[0], [Seen::Value(b"[1,9)".to_vec()), Seen::Null]);
}

#[test]
fn rows_say_what_they_are() {
    let table = texts(Identity::Default);
    let mut batch = RowBatch::new(table.clone());
    let key: (&[_], bool) = (&[Some("1"), None, None], true);
    change(&mut batch, Op::Insert, Some(&[Some("1"), Some("x"), None]), None);
    change(&mut batch, Op::Update, Some(&[Some("2"), Some("?"), Some("y")]), Some(key));
    change(&mut batch, Op::Delete, None, Some(key));
    let (flags, columns) = read(&filled(&table, &batch, &["a", "id"]));
    let old_key = images::OP_UPDATE | images::OLD | images::KEY_ONLY;
    assert_eq!(flags, [images::OP_INSERT, old_key, images::OP_UPDATE | images::AFTER_OLD]);
    let value = |text: &str| Seen::Value(text.as_bytes().to_vec());
    assert_eq!(columns[0], [value("x"), Seen::Absent, Seen::Unchanged]);
    assert_eq!(columns[1], [value("1"), value("1"), value("2")]);
}

#[test]
fn nothing_is_a_batch_as_well() {
    let table = texts(Identity::Default);
    let batch = RowBatch::new(table.clone());
    let (flags, columns) = read(&filled(&table, &batch, &["a"]));
    assert_eq!((flags.len(), columns), (0, vec![vec![]]));
    let one = copied(&table, &[vec![None, None, None]]);
    let (flags, columns) = read(&filled(&table, &one, &[]));
    assert_eq!((flags, columns.len()), (vec![OP_SNAPSHOT], 0));
}

proptest! {
    #[test]
    fn any_rows_are_read_back(
        rows in prop::collection::vec(
            (prop::option::of(any::<i32>()), prop::option::of("\\PC{0,6}"), prop::option::of(any::<f64>())),
            0..20,
        ),
    ) {
        let types = [("id", Type::base(23)), ("t", Type::base(25)), ("f", Type::base(701))];
        let table = table(&types, Identity::Default);
        let raw: Vec<_> = rows.iter().map(|(i, t, f)| (
            i.map(|i| i.to_be_bytes()), t.clone(), f.map(|f| f.to_be_bytes()),
        )).collect();
        let cells: Vec<Vec<Option<&[u8]>>> = raw.iter().map(|(i, t, f)| vec![
            i.as_ref().map(|i| &i[..]), t.as_ref().map(|t| t.as_bytes()), f.as_ref().map(|f| &f[..]),
        ]).collect();
        let (_, columns) = read(&filled(&table, &copied(&table, &cells), &["f", "id", "t"]));
        let seen = |bytes: Option<Vec<u8>>| bytes.map_or(Seen::Null, Seen::Value);
        for (row, (i, t, f)) in rows.iter().enumerate() {
            prop_assert_eq!(&columns[0][row], &seen(f.map(|f| f.to_le_bytes().to_vec())));
            prop_assert_eq!(&columns[1][row], &seen(i.map(|i| word(i64::from(i)))));
            prop_assert_eq!(&columns[2][row], &seen(t.clone().map(String::into_bytes)));
        }
    }
}
