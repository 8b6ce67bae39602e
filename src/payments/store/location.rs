//! Where rows are stored.
//!
//! A claim returns where it has put its rows, and the settle reads them there instead of looking each up in an index. A location is a
//! hint: a row moves when it is updated, and another row may be stored in its place. So a statement that goes by locations compares
//! the keys, too, and what it does not find is looked up by its keys.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// PostgreSQL's types `tid` and `tid[]`. The numbers are the same in every database.
const TID: Oid = Oid(27);
const TID_ARRAY: Oid = Oid(1010);

/// Where a version of a row is stored: its `ctid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::payments) struct RowLocation([u8; 6]);

/// Where a claim's three rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::payments) struct RowLocations {
    pub(in crate::payments) key: RowLocation,
    pub(in crate::payments) unsettled_key: RowLocation,
    pub(in crate::payments) payment: RowLocation,
}

impl Type<Postgres> for RowLocation {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TID)
    }
}

impl PgHasArrayType for RowLocation {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TID_ARRAY)
    }
}

impl Decode<'_, Postgres> for RowLocation {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => Ok(Self(value.as_bytes()?.try_into()?)),
            PgValueFormat::Text => Err("a row's location is read in the binary format only".into()),
        }
    }
}

impl Encode<'_, Postgres> for RowLocation {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}
