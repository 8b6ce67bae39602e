//! A database's address for people, without its password.

use sqlx::postgres::PgConnectOptions;

/// Returns `host:port/database as user`.
///
/// ```
/// use payonce_engine::database::describe;
///
/// let options = "postgres://shop:secret@db.example:5433/orders".parse()?;
/// assert_eq!(describe(&options), "db.example:5433/orders as shop");
/// # Ok::<(), sqlx::Error>(())
/// ```
pub fn describe(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if options.get_host().contains(':') => format!("[{}]", options.get_host()),
        None => options.get_host().to_owned(),
    };
    let user = options.get_username();
    let database = options.get_database().unwrap_or(user);
    format!("{host}:{}/{database} as {user}", options.get_port())
}
