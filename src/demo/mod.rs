//! placeholder until the demo lands
pub async fn run(_: secrecy::SecretString) -> anyhow::Result<bool> {
    Ok(false)
}
