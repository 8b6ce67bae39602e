//! Fills a table with copies of a row that payonce itself has written.
//!
//! One payment is made by a request. The rows of the key and of the payment are read in `copy`'s binary format and written back in
//! any number, with the merchant, the key, the payment's id, the customer and the time of expiry replaced. So the rows are as large as
//! real ones, whatever the schema is, and a copy is answered like the original. Rows are written frozen and before the indexes are
//! built, which gives a table like one that has existed for a long time, with nothing for a vacuum to do.

use anyhow::{Context, bail, ensure};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};

use crate::database::Database;
use crate::keys::{KeyKind, mix, payment_id};
use crate::requests::CUSTOMER;
use crate::store;

/// The merchant of the template, number 0.
pub const MERCHANT: &str = "bench-0000";

/// The fill factor while copies are written, in percent. The tables' own fill factor leaves room for settles, which copies of
/// settled rows do not need: a page would have one row instead of the four or so that claims and settles leave.
const AS_SETTLES_LEAVE_IT: i32 = 65;

/// Size of a piece that is sent to the server, in bytes.
const CHUNK: usize = 256 * 1024;

/// The template, and the number and kind of copies.
#[derive(Clone, Debug)]
pub struct Fill {
    pub count: u64,
    /// The template was made by the key of number 0, and becomes one of the copies.
    pub kind: KeyKind,
    /// The id of the template's payment.
    pub payment_id: String,
    /// Number of merchants, whose rows alternate; at most 10,000.
    pub merchants: u64,
    /// Whether each payment has a customer of its own. Repeated requests must not.
    pub customers: bool,
    /// When the keys expire, in seconds from now, spread evenly. Negative if they have expired.
    pub expires_in: std::ops::Range<i64>,
    pub tables: &'static [&'static str],
}

/// Keys and their payments.
pub const KEYS_AND_PAYMENTS: &[&str] = &["idempotency_keys", "payments"];

/// Keys without payments.
pub const KEYS: &[&str] = &["idempotency_keys"];

impl Fill {
    /// Replaces the tables' rows. Both are filled at the same time.
    pub async fn run(&self, database: &Database) -> anyhow::Result<()> {
        let mut connection = database.connect().await?;
        let mut loads = Vec::new();
        for table in self.tables {
            let template = self.read_template(&mut connection, table).await?;
            let (fill, database) = (self.clone(), database.clone());
            loads.push(tokio::spawn(async move {
                fill.load(&database, table, template).await
            }));
        }
        for load in loads {
            load.await??;
        }
        Ok(connection.close().await?)
    }

    async fn read_template(
        &self,
        connection: &mut PgConnection,
        table: &str,
    ) -> anyhow::Result<Template> {
        let id_column = match table {
            "payments" => "payment_id",
            _ => "resource_id",
        };
        let columns = store::columns(connection, table).await?;
        let statement = format!(
            "copy (select * from {table} where {id_column} = '{}') to stdout (format binary)",
            self.payment_id
        );
        let chunks = connection.copy_out_raw(&statement).await?;
        let bytes: Vec<_> = chunks.try_collect().await?;
        let row = only_row(&bytes.concat())?;
        let expires_at = columns.iter().position(|column| column == "expires_at");
        Template::new(row, expires_at, self).with_context(|| format!("the template of {table}"))
    }

    async fn load(
        &self,
        database: &Database,
        table: &str,
        template: Template,
    ) -> anyhow::Result<()> {
        let mut connection = database.connect().await?;
        let indexes = store::index_statements(&mut connection, table).await?;
        let references = store::references_to(&mut connection, table).await?;
        let fill_factor = store::fill_factor(&mut connection, table).await?;
        let mut run = async |sql: &str| store::execute(&mut connection, sql.to_owned()).await;
        run("set maintenance_work_mem = '512MB'").await?;
        // A table that was emptied in the same transaction may be filled with frozen rows.
        run("begin").await?;
        for index in &indexes {
            run(&index.dropping).await?;
        }
        run(&format!("truncate {table}")).await?;
        run(&format!(
            "alter table {table} set (fillfactor = {AS_SETTLES_LEAVE_IT})"
        ))
        .await?;
        let copied = self.copy(&mut connection, table, template).await?;
        ensure!(
            copied == self.count,
            "{copied} of {} rows were copied",
            self.count
        );
        let mut run = async |sql: &str| store::execute(&mut connection, sql.to_owned()).await;
        run(&format!(
            "alter table {table} set (fillfactor = {fill_factor})"
        ))
        .await?;
        for index in &indexes {
            run(&index.creating).await?;
        }
        for reference in &references {
            run(reference).await?;
        }
        run("commit").await?;
        run(&format!("analyze {table}")).await?;
        Ok(connection.close().await?)
    }

    async fn copy(
        &self,
        connection: &mut PgConnection,
        table: &str,
        mut template: Template,
    ) -> anyhow::Result<u64> {
        let statement = format!("copy {table} from stdin (format binary, freeze)");
        let mut copy = connection.copy_in_raw(&statement).await?;
        let mut chunk = Vec::with_capacity(2 * CHUNK);
        chunk.extend_from_slice(HEADER);
        for number in 0..self.count {
            chunk.extend_from_slice(template.row(number, self));
            if chunk.len() >= CHUNK {
                copy.send(&chunk[..]).await?;
                chunk.clear();
            }
        }
        chunk.extend_from_slice(&(-1_i16).to_be_bytes());
        copy.send(&chunk[..]).await?;
        Ok(copy.finish().await?)
    }
}

/// The signature, no flags, no extension: PostgreSQL's manual, "COPY", "Binary Format".
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The row of a copy with a single row, as `copy` wrote it.
fn only_row(copied: &[u8]) -> anyhow::Result<Vec<u8>> {
    let rows = copied
        .strip_prefix(HEADER)
        .context("it is not in copy's binary format")?;
    let row = rows
        .strip_suffix(&(-1_i16).to_be_bytes())
        .context("it has no end")?;
    ensure!(!row.is_empty(), "the template's row is not there");
    let length = fields(row)?.last().map_or(0, |field| field.end);
    ensure!(row.len() == length, "there is more than one row");
    Ok(row.to_vec())
}

/// The ranges of a row's fields; a null is empty.
fn fields(row: &[u8]) -> anyhow::Result<Vec<std::ops::Range<usize>>> {
    let cut = || "the row is cut off";
    let count = i16::from_be_bytes(*row.first_chunk().with_context(cut)?);
    let mut at = 2;
    let mut fields = Vec::new();
    for _ in 0..count {
        let length = row.get(at..).and_then(|rest| rest.first_chunk());
        let length = i32::from_be_bytes(*length.with_context(cut)?);
        at += 4;
        let field = at..at + usize::try_from(length).unwrap_or(0);
        at = field.end;
        fields.push(field);
    }
    Ok(fields)
}

/// A row, and the parts to overwrite in it.
struct Template {
    row: Vec<u8>,
    merchants_at: Vec<usize>,
    keys_at: Vec<usize>,
    payments_at: Vec<usize>,
    customers_at: Vec<usize>,
    expires_at: Option<Expiry>,
}

struct Expiry {
    at: usize,
    /// When the first key expires, and over what time the others do, in microseconds.
    first: i64,
    span: i64,
}

impl Template {
    fn new(row: Vec<u8>, expires_at: Option<usize>, fill: &Fill) -> anyhow::Result<Self> {
        let key = fill.kind.key(0);
        let customers_at = match fill.customers {
            true => places(&row, customer(0).as_bytes())?,
            false => Vec::new(),
        };
        let expires_at = match expires_at {
            None => None,
            Some(column) => {
                let fields = fields(&row)?;
                let field = fields.get(column).context("expires_at is missing")?;
                ensure!(field.len() == 8, "expires_at is no time stamp");
                Some(Expiry {
                    at: field.start,
                    first: postgres_now() + fill.expires_in.start * 1_000_000,
                    span: (fill.expires_in.end - fill.expires_in.start) * 1_000_000,
                })
            }
        };
        Ok(Self {
            merchants_at: places(&row, MERCHANT.as_bytes())?,
            keys_at: places(&row, &key)?,
            payments_at: places(&row, fill.payment_id.as_bytes())?,
            customers_at,
            expires_at,
            row,
        })
    }

    fn row(&mut self, number: u64, fill: &Fill) -> &[u8] {
        let merchant = format!("bench-{:04}", number % fill.merchants.max(1));
        let customer = customer(number);
        let key = fill.kind.key(number);
        let payment = payment_id(0, number);
        for (places, text) in [
            (&self.merchants_at, merchant.as_bytes()),
            (&self.keys_at, &key),
            (&self.payments_at, &payment),
            (&self.customers_at, customer.as_bytes()),
        ] {
            for &at in places {
                self.row[at..at + text.len()].copy_from_slice(text);
            }
        }
        if let Some(Expiry { at, first, span }) = self.expires_at {
            let share = (u128::from(number) * span.unsigned_abs() as u128
                / u128::from(fill.count.max(1))) as i64;
            self.row[at..at + 8].copy_from_slice(&(first + share).to_be_bytes());
        }
        &self.row
    }
}

/// As wide as [`CUSTOMER`].
fn customer(number: u64) -> String {
    match number {
        0 => CUSTOMER.to_owned(),
        _ => format!("cus_{:08x}", mix(number) as u32),
    }
}

fn places(row: &[u8], text: &[u8]) -> anyhow::Result<Vec<usize>> {
    let windows = row.windows(text.len()).enumerate();
    let found: Vec<usize> = windows
        .filter(|(_, window)| *window == text)
        .map(|(at, _)| at)
        .collect();
    if found.is_empty() {
        bail!("{} is not in it", String::from_utf8_lossy(text));
    }
    Ok(found)
}

/// Microseconds since 2000, PostgreSQL's epoch.
fn postgres_now() -> i64 {
    const SECONDS_TO_2000: i64 = 946_684_800;
    chrono::Utc::now().timestamp_micros() - SECONDS_TO_2000 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(row: &mut Vec<u8>, bytes: &[u8]) {
        row.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        row.extend_from_slice(bytes);
    }

    fn fill() -> Fill {
        Fill {
            count: 4,
            kind: KeyKind::Digits,
            payment_id: String::from_utf8(payment_id(9, 9)).expect("text"),
            merchants: 2,
            customers: true,
            expires_in: 0..4,
            tables: KEYS,
        }
    }

    fn row(fill: &Fill) -> Vec<u8> {
        let mut row = 4_i16.to_be_bytes().to_vec();
        field(&mut row, MERCHANT.as_bytes());
        field(&mut row, &fill.kind.key(0));
        field(&mut row, &[0; 8]);
        let body = format!("{} {CUSTOMER} {}", fill.payment_id, fill.payment_id);
        field(&mut row, body.as_bytes());
        row
    }

    #[test]
    fn a_copy_differs_in_its_names_and_its_time_alone() {
        let fill = fill();
        let original = row(&fill);
        let mut template = Template::new(original.clone(), Some(2), &fill).expect("a template");
        let expiry = |row: &[u8]| {
            let at = fields(row).expect("fields")[2].start;
            i64::from_be_bytes(*row[at..].first_chunk().expect("eight bytes"))
        };
        let first = template.row(0, &fill).to_vec();
        let fourth = template.row(3, &fill).to_vec();
        assert_eq!(fourth.len(), original.len());
        assert_eq!(expiry(&fourth) - expiry(&first), 3_000_000);
        let text = String::from_utf8_lossy(&fourth).into_owned();
        assert!(text.contains("bench-0001") && !text.contains(MERCHANT));
        let key = String::from_utf8(fill.kind.key(3)).expect("text");
        assert!(text.contains(&key));
        assert!(!text.contains(CUSTOMER));
        let id = String::from_utf8(payment_id(0, 3)).expect("text");
        assert_eq!(text.matches(&id).count(), 2, "in the body twice");
    }

    #[test]
    fn a_copy_of_none_or_of_two_rows_is_refused() {
        let row = row(&fill());
        let copied = |rows: &[&[u8]]| [HEADER, &rows.concat(), &(-1_i16).to_be_bytes()].concat();
        assert_eq!(only_row(&copied(&[&row])).expect("one row"), row);
        assert!(only_row(&copied(&[])).is_err());
        assert!(only_row(&copied(&[&row, &row])).is_err());
        assert!(only_row(b"PGCOPY").is_err());
    }
}
