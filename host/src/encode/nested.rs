//! Values made of values: arrays, composites, hstore, pgvector.
//!
//! Lengths are checked against the available bytes before anything is written. The type bounds the
//! depth: the catalog compiles types to a bounded depth.

use walgate_wire::pack;

use crate::rows::Type;
use crate::{
    encode::{PackError, Packer},
    rows::Rendered,
};

/// Postgres' MAXDIM.
const DIMENSIONS_MAX: usize = 6;
/// Below this, oids belong to Postgres itself and never mean another type.
const FIRST_USER_OID: u32 = 16_384;

/// A type inside another, with the oid that its values should name.
#[derive(Clone, Debug)]
struct Part {
    oid: u32,
    packer: Packer,
}

impl Part {
    fn new(ty: &Type) -> Self {
        Part { oid: ty.oid, packer: Packer::new(ty) }
    }

    fn of_field(ty: &Type) -> Self {
        Part { oid: ty.oid, packer: Packer::of_field(ty) }
    }

    /// Values name the declared type, but the catalog compiled its base. The two are comparable
    /// only if Postgres sent a built-in type, which is never a domain.
    fn check_oid(&self, sent: u32) -> Result<(), PackError> {
        if sent < FIRST_USER_OID && sent != self.oid { Err(PackError::Altered) } else { Ok(()) }
    }

    fn pack(
        &self,
        bytes: Option<&[u8]>,
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        match bytes {
            Some(bytes) => self.packer.pack(bytes, out, rendered),
            None => {
                pack::nil(out);
                Ok(())
            }
        }
    }
}

/// `array_send`: dimensions, null flag, element type, length and lower bound of each dimension,
/// elements.
#[derive(Clone, Debug)]
pub struct ArrayPacker {
    element: Part,
}

impl ArrayPacker {
    pub(super) fn new(element: &Type) -> Self {
        ArrayPacker { element: Part::new(element) }
    }

    /// Of a composite's field.
    pub(super) fn of_field(element: &Type) -> Self {
        ArrayPacker { element: Part::of_field(element) }
    }

    pub(super) fn renders(&self) -> bool {
        self.element.packer.renders()
    }

    pub(super) fn pack(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        let mut fields = Fields(bytes);
        let dimensions = fields.read_count()?;
        fields.read_int()?;
        self.element.check_oid(fields.read_int()? as u32)?;
        if dimensions > DIMENSIONS_MAX {
            return Err(PackError::BadArray);
        }
        let mut lengths = [0; DIMENSIONS_MAX];
        let lengths = &mut lengths[..dimensions];
        for length in lengths.iter_mut() {
            *length = fields.read_count()?;
            fields.read_int()?;
        }
        let total = lengths.iter().try_fold(1usize, |total, &length| total.checked_mul(length));
        if dimensions == 0 || total == Some(0) {
            pack::array(out, 0);
            return fields.expect_end();
        }
        // Each element takes four bytes at least.
        if total.is_none_or(|total| total > fields.0.len() / 4) {
            return Err(PackError::BadArray);
        }
        self.pack_level(lengths, &mut fields, out, rendered)?;
        fields.expect_end()
    }

    fn pack_level(
        &self,
        lengths: &[usize],
        fields: &mut Fields<'_>,
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        let Some((&length, inner)) = lengths.split_first() else {
            return self.element.pack(fields.read_field()?, out, rendered);
        };
        pack::array(out, length);
        (0..length).try_for_each(|_| self.pack_level(inner, fields, out, rendered))
    }
}

/// `record_send`: field count; of each field its type and value.
#[derive(Clone, Debug)]
pub struct CompositePacker {
    fields: Vec<(String, Part)>,
}

impl CompositePacker {
    pub(super) fn new(fields: &[(String, Type)]) -> Self {
        let part = |(name, ty): &(String, Type)| (name.clone(), Part::of_field(ty));
        CompositePacker { fields: fields.iter().map(part).collect() }
    }

    pub(super) fn pack(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        rendered: &mut Rendered,
    ) -> Result<(), PackError> {
        let mut fields = Fields(bytes);
        if fields.read_count()? != self.fields.len() {
            return Err(PackError::Altered);
        }
        pack::map(out, self.fields.len());
        for (name, part) in &self.fields {
            part.check_oid(fields.read_int()? as u32)?;
            pack::str(out, name);
            part.pack(fields.read_field()?, out, rendered)?;
        }
        fields.expect_end()
    }
}

/// `hstore_send`: pair count; of each pair key and value.
pub(super) fn pack_hstore(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let mut fields = Fields(bytes);
    let pairs = fields.read_count()?;
    // Each pair takes eight bytes at least.
    if pairs > fields.0.len() / 8 {
        return Err(PackError::EndsEarly);
    }
    pack::map(out, pairs);
    for _ in 0..pairs {
        pack::str_bytes(out, fields.read_field()?.ok_or(PackError::WrongLength)?);
        match fields.read_field()? {
            Some(value) => pack::str_bytes(out, value),
            None => pack::nil(out),
        }
    }
    fields.expect_end()
}

/// `vector_send`: dimension and a spare (16 bits each), then floats.
pub(super) fn pack_vector(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let (head, floats) = bytes.split_first_chunk::<4>().ok_or(PackError::EndsEarly)?;
    let dimension = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let (floats, rest) = floats.as_chunks::<4>();
    if floats.len() != dimension || !rest.is_empty() {
        return Err(PackError::WrongLength);
    }
    pack::array(out, dimension);
    floats.iter().for_each(|&bits| pack::f32_bits(out, bits));
    Ok(())
}

/// The unread rest of a value of 32-bit integers and length-prefixed fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn read_int(&mut self) -> Result<i32, PackError> {
        let (int, rest) = self.0.split_first_chunk::<4>().ok_or(PackError::EndsEarly)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*int))
    }

    fn read_count(&mut self) -> Result<usize, PackError> {
        usize::try_from(self.read_int()?).map_err(|_| PackError::WrongLength)
    }

    /// The next field; none for NULL.
    fn read_field(&mut self) -> Result<Option<&'a [u8]>, PackError> {
        let len = self.read_int()?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| PackError::WrongLength)?;
        let (field, rest) = self.0.split_at_checked(len).ok_or(PackError::EndsEarly)?;
        self.0 = rest;
        Ok(Some(field))
    }

    fn expect_end(&self) -> Result<(), PackError> {
        if self.0.is_empty() { Ok(()) } else { Err(PackError::TrailingBytes) }
    }
}
