//! Damaged buffers that must be refused, made of the vector `region`.

use serde_json::{Value as Json, json};
use walgate_guest::test::encode_batch;
use walgate_guest::transform::Instance;

use super::{hex, people, region, region_rows};

/// Of the vector `region`, damaged: offset, what is put there, why it must be refused.
fn damaged(bytes: &[u8], damage: &[(usize, &[u8], &str)]) -> Json {
    damage
        .iter()
        .map(|(at, put, why)| {
            let mut bytes = bytes.to_vec();
            bytes[*at..at + put.len()].copy_from_slice(put);
            json!({"bytes": hex(&bytes), "why": why})
        })
        .collect()
}

pub fn batches() -> Json {
    let (_, plan) = Instance::<region>::plan(&people()).expect("a vector");
    let rows = region_rows();
    let batch =
        encode_batch(&people(), &plan, &walgate_guest::test::batch_images(&people(), &rows))
            .expect("a vector");
    damaged(
        &batch,
        &[
            (3, b"2", "another magic number"),
            (4, &[255, 255, 255, 255], "more rows than bytes"),
            (16, &[4, 0, 0, 0], "a section that does not begin at a multiple of 8"),
            (24, &[10], "a kind that is none"),
            (28, &[0, 0, 0, 128], "states outside the buffer"),
            (36, &[0, 0, 0, 0], "data too short for its ends"),
        ],
    )
}

pub fn decisions() -> Json {
    let (mut instance, plan) = Instance::<region>::plan(&people()).expect("a vector");
    let rows = region_rows();
    let batch =
        encode_batch(&people(), &plan, &walgate_guest::test::batch_images(&people(), &rows))
            .expect("a vector");
    let decisions = instance.process(&batch).expect("a vector");
    let verdicts = u32::from_le_bytes(decisions[16..20].try_into().expect("a vector")) as usize;
    damaged(
        &decisions,
        &[
            (0, b"WGB1", "a batch's magic number"),
            (8, &[1], "another number of columns than the plan has"),
            (verdicts, &[3], "a verdict that is none"),
            (24, &[4], "a text column that says it is bytes"),
            (44, &[0, 0, 0, 0], "an added column without states"),
            (20, &[255, 255, 0, 0], "errors outside the buffer"),
        ],
    )
}
