//! Whether our secret signed the fingerprints in the database.

use sqlx::PgConnection;

use super::Finding;
use super::upkeep::is_undefined_table;
use crate::config::ServeArgs;
use crate::idempotency::records::{ComparedSecrets, UnknownSecret};

const NAME: &str = "signing-secret";

pub(super) async fn examine(connection: &mut PgConnection, args: &ServeArgs) -> Finding {
    let secrets = args.idempotency.fingerprint_secrets().ok();
    match ComparedSecrets::read(connection, secrets.as_ref()).await {
        Err(error) if is_undefined_table(&error) => Finding::ok(NAME, NONE_YET),
        compared => Finding::or_unseen(NAME, compared.map(|compared| judge(&compared, args))),
    }
}

const NONE_YET: &str =
    "the database has recorded no secret yet: payonce serve records its own when it starts";

fn judge(compared: &ComparedSecrets, args: &ServeArgs) -> Finding {
    let signing = compared.other_signers();
    if compared.ours.is_empty() {
        return without_ours(&signing);
    }
    if !signing.is_empty() {
        return other_signers(compared, &signing, args.allow_other_fingerprint_secret);
    }
    let lifetime = args.idempotency.key_ttl;
    let unknown = compared.unknown.iter();
    let needed: Vec<_> = unknown
        .filter(|secret| secret.is_needed(lifetime))
        .cloned()
        .collect();
    if !needed.is_empty() {
        let found = format!(
            "keys that older secrets signed may still be remembered, and they are not set: their ids are {}",
            ids(&needed)
        );
        let advice = "keep the older secret as the second value of PAYONCE_FINGERPRINT_SECRET for as long as keys are remembered (PAYONCE_KEY_TTL); without it, their retries are answered 503";
        return Finding::warning(NAME, found, advice);
    }
    if !compared.has_recorded_ours {
        return Finding::ok(NAME, NONE_YET);
    }
    let found = format!(
        "the database's fingerprints are signed by ours (its id is {})",
        compared.ours.join(", ")
    );
    Finding::ok(NAME, found)
}

fn without_ours(signing: &[UnknownSecret]) -> Finding {
    if signing.is_empty() {
        return Finding::ok(NAME, NONE_YET);
    }
    let found = format!(
        "the database's fingerprints are signed by a secret (its id is {}), and none is set to compare",
        ids(signing)
    );
    let advice =
        "set PAYONCE_FINGERPRINT_SECRET to the one that signed them, and run the doctor again";
    Finding::warning(NAME, found, advice)
}

fn other_signers(
    compared: &ComparedSecrets,
    signing: &[UnknownSecret],
    is_allowed: bool,
) -> Finding {
    let found = format!(
        "the fingerprints of this database are signed by another secret (its id is {}, ours are {})",
        ids(signing),
        compared.ours.join(", ")
    );
    if is_allowed {
        let advice = "allowed by --allow-other-fingerprint-secret: a repeated request whose key it signed is answered 503 until the key is forgotten";
        return Finding::warning(NAME, found, advice);
    }
    let advice = "payonce serve refuses to start: set PAYONCE_FINGERPRINT_SECRET to the one that signed them, put that one second to rotate it, or pass --allow-other-fingerprint-secret where it is lost (docs/OPERATIONS.md, \"Rotate the fingerprint secret\")";
    Finding::problem(NAME, found, advice)
}

fn ids(secrets: &[UnknownSecret]) -> String {
    let ids: Vec<&str> = secrets.iter().map(|secret| secret.id.as_str()).collect();
    ids.join(", ")
}
