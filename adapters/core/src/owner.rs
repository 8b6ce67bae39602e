//! Whose key it is.

/// Maximum length of an owner's name, in bytes: the database's.
const LONGEST: usize = 255;

/// The result of a route's function that names the key's owner: a name, or `None` if the request has no owner. Such a request is
/// answered with 401.
///
/// ```
/// use payonce_http::IntoOwner;
///
/// assert_eq!("acme".into_owner(), Some("acme".to_owned()));
/// assert_eq!(None::<String>.into_owner(), None);
/// assert_eq!("".into_owner(), None);
/// ```
pub trait IntoOwner {
    /// The owner's name, 1–255 bytes.
    fn into_owner(self) -> Option<String>;
}

impl IntoOwner for String {
    fn into_owner(self) -> Option<String> {
        (1..=LONGEST).contains(&self.len()).then_some(self)
    }
}

impl IntoOwner for &str {
    fn into_owner(self) -> Option<String> {
        self.to_owned().into_owner()
    }
}

impl<T: IntoOwner> IntoOwner for Option<T> {
    fn into_owner(self) -> Option<String> {
        self.and_then(IntoOwner::into_owner)
    }
}
