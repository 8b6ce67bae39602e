//! The server that everything is measured on, and one database on it for each variant. All are empty at the start.

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::sync::Mutex;

use anyhow::{Context, bail, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::process::postmaster;
use crate::store::{self, ServerSettings};

/// A PostgreSQL server, and the databases that were made on it.
pub struct DatabaseServer {
    options: PgConnectOptions,
    made: Mutex<Vec<String>>,
    pub settings: ServerSettings,
    /// The first processes of the server and of the standbys that follow it, where they are known.
    pub postmasters: Vec<u32>,
}

/// A database of the benchmark's own.
#[derive(Clone, Debug)]
pub struct Database {
    options: PgConnectOptions,
}

impl DatabaseServer {
    /// Refuses a server that may lose confirmed commits: its rates would mean nothing.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .context("--database-url (DATABASE_URL) is no PostgreSQL URL")?
            .application_name("payonce-bench");
        let mut connection = options
            .connect()
            .await
            .context("cannot reach the database (DATABASE_URL)")?;
        let settings = store::server_settings(&mut connection).await?;
        connection.close().await?;
        check_durability(&settings)?;
        let mut server = Self {
            options,
            made: Mutex::default(),
            settings,
            postmasters: Vec::new(),
        };
        let data = server.data_directory().await;
        server.postmasters = data.as_deref().and_then(postmaster).into_iter().collect();
        Ok(server)
    }

    /// The database that the URL names.
    pub fn named(&self) -> Database {
        Database {
            options: self.options.clone(),
        }
    }

    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(self.options.connect().await?)
    }

    /// Returns the data directory if the role may read it and it is on this machine.
    pub async fn data_directory(&self) -> Option<PathBuf> {
        let mut connection = self.connect().await.ok()?;
        let path = store::data_directory(&mut connection)
            .await
            .ok()
            .map(PathBuf::from);
        drop(connection.close().await);
        path.filter(|path| path.exists())
    }

    /// Refuses a run that would fill the disk, if its free space is known.
    pub async fn check_room(&self, needed: u64) -> anyhow::Result<()> {
        let Some(data) = self.data_directory().await else {
            return Ok(());
        };
        let disk = nix::sys::statvfs::statvfs(&data)?;
        let free = disk.blocks_available() * disk.fragment_size();
        ensure!(
            free >= needed,
            "{} GiB of disk are needed, {} GiB are free in {}",
            needed >> 30,
            free >> 30,
            data.display()
        );
        Ok(())
    }

    /// Creates an empty database.
    pub async fn create(&self, name: &str) -> anyhow::Result<Database> {
        let name = format!("payonce_bench_{}_{name}", std::process::id());
        let mut connection = self.connect().await?;
        store::create_database(&mut connection, &name)
            .await
            .context("cannot create a database")?;
        connection.close().await?;
        let options = self.options.clone().database(&name);
        if let Ok(mut made) = self.made.lock() {
            made.push(name);
        }
        Ok(Database { options })
    }

    /// Makes a checkpoint before a run, so that no variant pays for the writes of an earlier run. A role without the privilege
    /// measures without it.
    pub async fn settle_down(&self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        // A plain role may not do it.
        let _ = store::checkpoint(&mut connection).await;
        Ok(connection.close().await?)
    }

    /// Drops a database that is not needed any more, because its rows may fill a disk.
    pub async fn remove(&self, database: &Database) -> anyhow::Result<()> {
        let name = database.options.get_database().unwrap_or_default();
        let mut connection = self.connect().await?;
        store::drop_database(&mut connection, name).await?;
        if let Ok(mut made) = self.made.lock() {
            made.retain(|other| other != name);
        }
        Ok(connection.close().await?)
    }

    /// Drops the remaining databases.
    pub async fn drop_all(&self) -> anyhow::Result<()> {
        let made = self
            .made
            .lock()
            .map(|made| made.clone())
            .unwrap_or_default();
        let mut connection = self.connect().await?;
        for name in made {
            store::drop_database(&mut connection, &name).await?;
        }
        Ok(connection.close().await?)
    }
}

fn check_durability(settings: &ServerSettings) -> anyhow::Result<()> {
    for (name, value) in [
        ("fsync", &settings.fsync),
        ("synchronous_commit", &settings.synchronous_commit),
        ("full_page_writes", &settings.full_page_writes),
    ] {
        if value == "off" {
            bail!(
                "{name} is off: this server may lose confirmed commits, so nothing is measured on it"
            );
        }
    }
    Ok(())
}

impl Database {
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(self.options.connect().await?)
    }

    /// The URL for payonce and the reference handler.
    pub fn url(&self) -> String {
        self.options.to_url_lossy().to_string()
    }

    /// For a program that is known by this name on the server.
    pub fn url_as(&self, name: &str) -> String {
        let options = self.options.clone().application_name(name);
        options.to_url_lossy().to_string()
    }

    /// The environment for PostgreSQL's programs, which do not accept every part of sqlx's URL. The password is not among the
    /// arguments, because every user of the machine can read those.
    pub fn set_environment(&self, command: &mut Command) {
        let url = self.options.to_url_lossy();
        let host = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => self.options.get_host().to_owned(),
        };
        command
            .env("PGHOST", host)
            .env("PGPORT", self.options.get_port().to_string())
            .env("PGUSER", self.options.get_username())
            .env(
                "PGDATABASE",
                self.options.get_database().unwrap_or_default(),
            );
        if let Some(password) = url.password() {
            command.env("PGPASSWORD", percent_decoded(password));
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| std::str::from_utf8(after.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ServerSettings {
        let on = || "on".to_owned();
        ServerSettings {
            version: "15".to_owned(),
            fsync: on(),
            synchronous_commit: on(),
            full_page_writes: on(),
            wal_sync_method: "fdatasync".to_owned(),
            shared_buffers: "128MB".to_owned(),
            max_wal_size: "1GB".to_owned(),
            max_connections: 100,
        }
    }

    #[test]
    fn a_server_that_may_lose_commits_is_refused() {
        assert!(check_durability(&settings()).is_ok());
        let off: [fn(&mut ServerSettings) -> &mut String; 3] = [
            |settings| &mut settings.fsync,
            |settings| &mut settings.synchronous_commit,
            |settings| &mut settings.full_page_writes,
        ];
        for setting in off {
            let mut settings = settings();
            *setting(&mut settings) = "off".to_owned();
            assert!(check_durability(&settings).is_err(), "{settings:?}");
        }
    }

    #[test]
    fn a_password_is_handed_on_as_it_is() {
        for (escaped, plain) in [("a%40b%2Fc", "a@b/c"), ("100%", "100%"), ("%C3%A9", "é")] {
            assert_eq!(percent_decoded(escaped), plain);
        }
    }
}
