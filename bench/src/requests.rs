//! The requests. Each is made once, and the parts that change are overwritten in place.

use crate::keys::{Key, KeyKind};

/// The customer of a template; the digits are overwritten.
pub const CUSTOMER: &str = "cus_00000000";

/// The API key of the requests. Every variant gets the same bytes.
pub const BODY: &str = r#"{"amount": 99.99, "currency": "USD", "paymentMethod": {"type": "CARD", "details": {"cardNumber": "4242424242424242", "cvv": "123", "expiryMonth": "12", "expiryYear": "2031", "cardHolderName": "Test User"}}, "customer": {"id": "cus_00000000", "email": "test@example.com", "name": "Test User"}}"#;

/// Where payonce takes payments, and its rivals do.
pub const PATH: &str = "/v1/payments";

/// A whole `POST /v1/payments`, head and body in one buffer.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    key_at: usize,
    customer_at: Option<usize>,
}

/// Whether all payments have the same customer, as repeated requests must, or each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Customers {
    One,
    Many,
}

impl Request {
    /// Creates a request whose key has the length of `kind`.
    pub fn new(api_key: &str, kind: KeyKind, customers: Customers) -> Self {
        Self::to(PATH, api_key, kind, customers)
    }

    /// The same to another path.
    pub fn to(path: &str, api_key: &str, kind: KeyKind, customers: Customers) -> Self {
        let key = kind.key(0);
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {api_key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nIdempotency-Key: ",
            BODY.len()
        )
        .into_bytes();
        let key_at = bytes.len();
        bytes.extend_from_slice(&key);
        bytes.extend_from_slice(b"\r\n\r\n");
        let body_at = bytes.len();
        bytes.extend_from_slice(BODY.as_bytes());
        let customer_at = match customers {
            Customers::One => None,
            Customers::Many => BODY.find(CUSTOMER).map(|at| body_at + at + "cus_".len()),
        };
        Self {
            bytes,
            key_at,
            customer_at,
        }
    }

    /// The bytes of the request with this key.
    pub fn with_key(&mut self, key: &Key) -> &[u8] {
        self.bytes[self.key_at..self.key_at + key.len()].copy_from_slice(key);
        if let Some(at) = self.customer_at {
            // The customer is the first eight characters of the key.
            self.bytes[at..at + 8].copy_from_slice(&key[..8]);
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_and_the_customer_change() {
        let kind = KeyKind::Uuid { seed: 1 };
        let mut one = Request::new("sk", kind, Customers::One);
        let mut many = Request::new("sk", kind, Customers::Many);
        let (first, second) = (kind.key(1), kind.key(2));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");

        let request = text(one.with_key(&first));
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("\r\nIdempotency-Key: {}", text(&first))));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert_eq!(body, BODY);

        let mut elsewhere = Request::to("/gc", "sk", kind, Customers::One);
        assert!(text(elsewhere.with_key(&first)).starts_with("POST /gc HTTP/1.1\r\n"));

        let request = text(many.with_key(&second));
        let (_, body) = request.split_once("\r\n\r\n").expect("a head");
        let customer = format!("cus_{}", &text(&second)[..8]);
        assert_eq!(body, BODY.replace(CUSTOMER, &customer));
    }
}
