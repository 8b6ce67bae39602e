//! Whether the destination can read the fingerprints of the merchant's keys.

mod store;

use super::copy::{self, LONGEST_STEP};
use super::error::MoveError;
use super::side::Side;

/// Compares the secrets that sign now, and looks for those that still have keys of the merchant.
pub(super) async fn compare(
    source: &mut Side,
    destination: &mut Side,
    merchant_id: &str,
) -> Result<(), MoveError> {
    let here = store::signing_secrets(&mut source.control).await;
    let here = here.map_err(|error| source.failed(error))?;
    let there = store::signing_secrets(&mut destination.control).await;
    let there = there.map_err(|error| destination.failed(error))?;
    if here != there {
        return Err(MoveError::OtherSecrets {
            source_ids: shown(&here),
            destination_ids: shown(&there),
        });
    }
    let mut session = source.session().await?;
    let needed = async {
        copy::begin(&mut session, "begin read only", merchant_id).await?;
        store::secrets_in_use(&mut session, merchant_id, LONGEST_STEP).await
    };
    let mut needed = needed.await.map_err(|error| source.failed(error))?;
    let known = store::known_secrets(&mut destination.control).await;
    let known = known.map_err(|error| destination.failed(error))?;
    needed.retain(|id| !known.contains(id));
    match needed.is_empty() {
        true => Ok(()),
        false => Err(MoveError::MissingSecrets {
            merchant: merchant_id.to_owned(),
            ids: needed.join(", "),
        }),
    }
}

fn shown(ids: &[String]) -> String {
    match ids.is_empty() {
        true => "none: no node has been started there".to_owned(),
        false => ids.join(", "),
    }
}
