//! Tests of the comparison.

use super::*;

fn row(cells: &[&str]) -> Row {
    let mut row = Row::default();
    for cell in cells {
        walgate_wire::pack::str(&mut row.bytes, cell);
        row.end_cell();
    }
    row
}

fn cell(text: &str) -> Vec<u8> {
    row(&[text]).cell(0).to_vec()
}

fn look<L: Look>(mut look: L, rows: &[Row]) -> L {
    rows.iter().for_each(|row| look.at(row));
    look
}

fn compare(key: &[usize], source: &[Row], replica: &[Row]) -> Vec<Difference> {
    let key = Key::new(key.to_vec());
    let (a, b) = (look(Sums::new(key.clone()), source), look(Sums::new(key), replica));
    if a.differing(&b).is_empty() {
        return vec![];
    }
    let suspects = look(look(a.suspects(&b), source).now_replica(), replica);
    look(look(suspects.culprits(20), source).now_replica(), replica).differences()
}

#[test]
fn order_does_not_matter() {
    let rows: Vec<Row> = (0..5000).map(|i| row(&[&i.to_string(), "x"])).collect();
    let reversed: Vec<Row> = rows.iter().rev().cloned().collect();
    assert!(compare(&[0], &rows, &reversed).is_empty());
}

#[test]
fn missing_extra_and_different_rows_are_named() {
    let mut source: Vec<Row> = (0..5000).map(|i| row(&[&i.to_string(), "x", "y"])).collect();
    let mut replica = source.clone();
    replica[100] = row(&["100", "x", "z"]);
    source.remove(200);
    replica.remove(3000);
    let difference = |kind, key, columns| Difference { kind, key: vec![cell(key)], columns };
    assert_eq!(
        compare(&[0], &source, &replica),
        [
            difference(Kind::Missing, "3000", vec![]),
            difference(Kind::Extra, "200", vec![]),
            difference(Kind::Different, "100", vec![2])
        ]
    );
}

#[test]
fn without_a_key_rows_are_counted() {
    let source = [row(&["a"]), row(&["a"]), row(&["b"])];
    let replica = [row(&["a"]), row(&["b"]), row(&["b"])];
    let difference = |kind, key| Difference { kind, key: vec![cell(key)], columns: vec![] };
    assert_eq!(
        compare(&[], &source, &replica),
        [difference(Kind::Missing, "a"), difference(Kind::Extra, "b")]
    );
    assert!(compare(&[], &source, &source).is_empty());
}

#[test]
fn a_key_of_several_columns_does_not_run_together() {
    let (source, replica) = ([row(&["ab", "c"])], [row(&["a", "bc"])]);
    assert_eq!(compare(&[0, 1], &source, &replica).len(), 2);
}
