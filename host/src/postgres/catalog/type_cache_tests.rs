//! Tests of types compiled from catalog rows; no server.

use super::*;
use crate::rows::NATIVE_OIDS;

fn raw(name: &str, typtype: u8) -> RawType {
    RawType { name: name.into(), typtype, sends: true, ..RawType::default() }
}

#[test]
fn native_oids_are_sorted() {
    assert!(NATIVE_OIDS.is_sorted());
}

#[test]
fn types_are_compiled_to_their_leaves() {
    let mut cache = TypeCache::default();
    cache.insert(100, RawType { base: 101, ..raw("price", b'd') });
    cache.insert(101, RawType { base: 1700, ..raw("positive", b'd') });
    cache.insert(102, RawType { element: 103, ..raw("_line", b'b') });
    let fields = vec![("price".into(), 100), ("mood".into(), 104), ("box".into(), 603)];
    cache.insert(103, RawType { fields, ..raw("line", b'c') });
    cache.insert(104, raw("mood", b'e'));
    cache.insert(105, RawType { extension: "citext".into(), ..raw("citext", b'b') });
    cache.insert(106, RawType { extension: "vector".into(), ..raw("vector", b'b') });
    cache.insert(107, raw("hstore", b'b'));
    let fields = vec![
        ("price".to_owned(), Type::base(1700)),
        ("mood".to_owned(), Type { oid: 104, kind: Kind::Enum }),
        ("box".to_owned(), Type::rendered(603)),
    ];
    let line = Type { oid: 103, kind: Kind::Composite { name: "line".into(), fields } };
    assert_eq!(cache.compile_type(102), Type { oid: 102, kind: Kind::Array(Box::new(line)) });
    assert_eq!(cache.compile_type(105), Type::base(25));
    assert_eq!(cache.compile_type(106).kind, Kind::Vector);
    assert_eq!(cache.compile_type(107).kind, Kind::Rendered, "somebody's own type of that name");
}

#[test]
fn domains_are_made_of_something() {
    let mut cache = TypeCache::default();
    cache.insert(100, RawType { base: 101, ..raw("local_moment", b'd') });
    cache.insert(101, RawType { base: 1184, ..raw("moment", b'd') });
    cache.insert(102, RawType { element: 100, base_array: 1185, ..raw("_local_moment", b'b') });
    cache.insert(103, RawType { base: 102, ..raw("moments", b'd') });
    cache.insert(104, RawType { element: 103, base_array: 102, ..raw("_moments", b'b') });
    cache.insert(105, RawType { element: 106, base_array: 105, ..raw("_mood", b'b') });
    assert_eq!(cache.base_oid(100), Some(1184));
    assert_eq!(cache.base_oid(102), Some(1185));
    assert_eq!(cache.base_oid(103), Some(1185), "a domain over an array of domains");
    assert_eq!(cache.base_oid(104), Some(1185), "arrays of arrays have no type");
    assert_eq!([105, 1184, 4711].map(|oid| cache.base_oid(oid)), [None; 3]);
}

#[test]
fn what_a_composite_is_made_of_tells_its_attributes_apart() {
    let made_of = |fields: &[(&str, u32)], attnums: &[i16]| {
        let mut cache = TypeCache::default();
        let fields = fields.iter().map(|(name, oid)| ((*name).to_owned(), *oid)).collect();
        cache.insert(103, RawType { fields, attnums: attnums.to_vec(), ..raw("line", b'c') });
        cache.insert(102, RawType { element: 103, ..raw("_line", b'b') });
        cache.insert(101, RawType { base: 102, ..raw("lines", b'd') });
        let outer = vec![("lines".into(), 101), ("n".into(), 23)];
        cache.insert(100, RawType { fields: outer, attnums: vec![1, 2], ..raw("outer", b'c') });
        cache.insert(104, raw("mood", b'e'));
        assert_eq!([104, 23, 4711].map(|oid| cache.composite_fingerprint(oid)), [None, None, None]);
        [100, 101, 102, 103].map(|oid| cache.composite_fingerprint(oid).unwrap())
    };
    let before = made_of(&[("a", 23), ("b", 25)], &[1, 2]);
    assert_eq!(before, made_of(&[("a", 23), ("b", 25)], &[1, 2]));
    let altered = [
        made_of(&[("a", 23), ("b", 25), ("c", 25)], &[1, 2, 3]),
        made_of(&[("a", 23)], &[1]),
        made_of(&[("a", 23), ("z", 25)], &[1, 2]),
        // One goes, another of its type, or of its name as well, comes.
        made_of(&[("a", 23), ("c", 25)], &[1, 3]),
        made_of(&[("a", 23), ("b", 25)], &[1, 3]),
    ];
    for altered in altered {
        assert!(altered.iter().zip(&before).all(|(now, before)| now != before));
    }
}

#[test]
fn a_type_that_contains_itself_ends() {
    let mut cache = TypeCache::default();
    cache.insert(100, RawType { fields: vec![("self".into(), 100)], ..raw("loop", b'c') });
    cache.compile_type(100);
    assert!(cache.composite_fingerprint(100).is_some());
    assert_eq!(cache.binary_support(100), Binary::Yes);
}

#[test]
fn missing_send_functions_are_noticed() {
    let mut cache = TypeCache::default();
    cache.insert(1033, RawType { sends: false, ..raw("aclitem", b'b') });
    cache.insert(1034, RawType { element: 1033, ..raw("_aclitem", b'b') });
    assert_eq!(cache.binary_support(23), Binary::Yes);
    assert_eq!(cache.binary_support(1033), Binary::TextInstead);
    assert_eq!(cache.binary_support(1034), Binary::Fails);
}
