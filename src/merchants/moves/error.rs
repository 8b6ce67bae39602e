//! Why a merchant was not moved.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::database::DatabaseError;
use crate::merchants::Cell;

/// Why a merchant was not moved, or not to the end. Running the same command again is safe after each of them.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The source has no such merchant.
    #[error("there is no merchant {0} in the source's database (DATABASE_URL)")]
    UnknownMerchant(String),
    /// A database cannot be used at all.
    #[error("{side}")]
    Open {
        /// Which database.
        side: &'static str,
        /// Why.
        source: DatabaseError,
    },
    /// The destination's URL cannot be used. The message does not repeat it, because it contains a password.
    #[error("--to-database-url (PAYONCE_MOVE_DATABASE_URL) {0}")]
    DestinationUrl(String),
    /// A database failed on the way.
    #[error("{side} failed; nothing is lost: run the same command again")]
    Database {
        /// Which database.
        side: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// Both URLs lead to one database.
    #[error("DATABASE_URL and --to-database-url name the same database")]
    SameDatabase,
    /// The merchant would move to where it is.
    #[error("--to-cell and --cell (PAYONCE_CELL) are both {0}: the other cell's number is needed")]
    SameCell(Cell),
    /// Only one merchant moves at a time.
    #[error("{side}: another move is at work there; try again when it has ended")]
    AnotherMove {
        /// Which database.
        side: &'static str,
    },
    /// There are no triggers on Citus' distributed tables.
    #[error(
        "{side} is a Citus database: cells are ordinary PostgreSQL databases, and merchants are moved between these only"
    )]
    Citus {
        /// Which database.
        side: &'static str,
    },
    /// This program does not know all columns and tables there.
    #[error(
        "{side}: its schema is newer than this program (migration {migration}); use the newer payonce"
    )]
    NewerSchema {
        /// Which database.
        side: &'static str,
        /// The first unknown migration.
        migration: i64,
    },
    /// Triggers are made by the tables' owner.
    #[error(
        "{side}: {role} does not own the table {table}, and a move needs the owner's rights; use the URL of the role that migrates \
         (payonce_owner in deploy/roles.sql)"
    )]
    NotTheOwner {
        /// Which database.
        side: &'static str,
        /// Who is connected.
        role: String,
        /// The first table that somebody else owns.
        table: String,
    },
    /// Repeated requests would look like other requests.
    #[error(
        "the cells sign fingerprints with different secrets (the source's id is {source_ids}, the destination's {destination_ids}): a \
         repeated request would be taken for another one; give both cells the same PAYONCE_FINGERPRINT_SECRET first"
    )]
    OtherSecrets {
        /// The IDs of the source's secrets.
        source_ids: String,
        /// The IDs of the destination's.
        destination_ids: String,
    },
    /// Repeated requests could not be compared.
    #[error(
        "keys of merchant {merchant} that have not expired were signed by secrets that the destination has never had (their ids are {ids}): \
         their requests could not be repeated there; start the destination's nodes with each of them as the second value of \
         PAYONCE_FINGERPRINT_SECRET first, or move the merchant when those keys have expired"
    )]
    MissingSecrets {
        /// The merchant's ID.
        merchant: String,
        /// The IDs of the secrets.
        ids: String,
    },
    /// The source says that the merchant is on its way, and the destination has served it since.
    #[error(
        "merchant {0} has been served by the destination since this move began: the source's database has lost the end of the move; \
         docs/OPERATIONS.md (\"Move a merchant to another cell\") says how to set that right"
    )]
    HasGoneOn(String),
    /// The states in the two databases do not allow it.
    #[error("merchant {merchant} {why}")]
    Refused {
        /// The merchant's ID.
        merchant: String,
        /// What is in the way, and what to do.
        why: String,
    },
    /// Requests in progress did not end in time. The source serves the merchant again.
    #[error(
        "{keys} keys of merchant {merchant} were still at work after {wait:?} (--wait), so it stays where it is; \
         `payonce idempotency-keys list --state processing` shows them"
    )]
    StillAtWork {
        /// The merchant's ID.
        merchant: String,
        /// How many.
        keys: i64,
        /// How long was waited.
        wait: Duration,
    },
    /// A table could not be locked.
    #[error(
        "{side}: its tables were locked by other transactions for too long; look for long transactions in pg_stat_activity, and run \
         the same command again"
    )]
    Locked {
        /// Which database.
        side: &'static str,
    },
    /// The copy is not what the source has. It was not kept.
    #[error(
        "the copied rows of {table} differ from the source's; none of them was kept, and the merchant has not been moved"
    )]
    Different {
        /// The first table that differs.
        table: &'static str,
    },
    /// The move stopped midway. The merchant's writes, or all of its requests, are refused until it is continued or undone.
    #[error(transparent)]
    Halted(Halted),
}

/// Why a move came to a halt after it had begun.
#[derive(Debug)]
pub struct Halted {
    /// Why.
    pub cause: Box<MoveError>,
    /// What is the case until something is done.
    pub until_then: &'static str,
}

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.until_then)
    }
}

impl Error for Halted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The message of the cause itself has been told.
        self.cause.source()
    }
}

impl MoveError {
    pub(super) fn refused(merchant: &str, why: impl Into<String>) -> Self {
        Self::Refused {
            merchant: merchant.to_owned(),
            why: why.into(),
        }
    }
}
