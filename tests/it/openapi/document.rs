//! The checked document, as a client's generator reads it.

use serde_json::{Value, json};

use crate::support::service::Answer;

/// Headers of HTTP itself, and those that only a browser reads: no call describes them.
const UNDESCRIBED: [&str; 8] = [
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "referrer-policy",
    "x-content-type-options",
];

pub struct Document(pub Value);

/// A method of a path.
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub operation: &'a Value,
}

impl Call<'_> {
    pub fn id(&self) -> &str {
        self.operation["operationId"].as_str().expect("an id")
    }
}

impl Document {
    /// The document as it is served, except that members that a reply's schema does not name are refused, which a client would not
    /// do.
    pub fn strict() -> Self {
        let mut document: Value =
            serde_json::from_str(payonce::http::openapi_json()).expect("the document is JSON");
        for schema in document["components"]["schemas"]
            .as_object_mut()
            .expect("schemas")
            .values_mut()
        {
            if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
                schema["additionalProperties"] = json!(false);
            }
        }
        Self(document)
    }

    pub fn calls(&self) -> Vec<Call<'_>> {
        let paths = self.0["paths"].as_object().expect("paths");
        paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods");
                methods.iter().map(move |(method, operation)| Call {
                    method,
                    path,
                    operation,
                })
            })
            .collect()
    }

    pub fn call(&self, id: &str) -> Call<'_> {
        let mut calls = self.calls().into_iter();
        calls
            .find(|call| call.id() == id)
            .unwrap_or_else(|| panic!("no call {id}"))
    }

    /// Follows a reference, if it is one.
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            None => value,
            Some(target) => {
                let pointer = target
                    .strip_prefix('#')
                    .expect("a reference within the document");
                self.0
                    .pointer(pointer)
                    .unwrap_or_else(|| panic!("{target} is not there"))
            }
        }
    }

    pub fn parameters<'a>(&'a self, call: &Call<'a>) -> Vec<&'a Value> {
        let parameters = call.operation["parameters"].as_array().expect("parameters");
        parameters
            .iter()
            .map(|parameter| self.resolve(parameter))
            .collect()
    }

    /// The example of a header, path or query parameter, as text.
    pub fn parameter(&self, call: &Call<'_>, name: &str) -> Option<String> {
        let parameters = self.parameters(call);
        let parameter = parameters
            .into_iter()
            .find(|parameter| parameter["name"] == name)?;
        Some(match &parameter["example"] {
            Value::String(text) => text.clone(),
            example => example.to_string(),
        })
    }

    pub fn request_examples<'a>(&'a self, call: &Call<'a>) -> Vec<(&'a str, &'a Value)> {
        let content = &call.operation["requestBody"]["content"]["application/json"];
        self.examples(content)
    }

    fn examples<'a>(&'a self, content: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let examples = content["examples"].as_object();
        let named = examples.into_iter().flatten();
        named
            .map(|(name, example)| (name.as_str(), &self.resolve(example)["value"]))
            .collect()
    }

    /// The replies of a call: status, response, the one content type, and the examples.
    pub fn replies<'a>(&'a self, call: &Call<'a>) -> Vec<Reply<'a>> {
        let responses = call.operation["responses"].as_object().expect("responses");
        responses
            .iter()
            .map(|(status, response)| self.reply(status.parse().expect("a status"), response))
            .collect()
    }

    pub fn reply<'a>(&'a self, status: u16, response: &'a Value) -> Reply<'a> {
        let contents = response["content"].as_object().expect("content");
        let (content_type, content) = contents.iter().next().expect("a content type");
        Reply {
            status,
            response,
            content_type,
            schema: &content["schema"],
            examples: self.examples(content),
        }
    }

    /// The validator of a schema.
    pub fn validator(&self, schema: &Value) -> jsonschema::Validator {
        let mut root = schema.clone();
        root["components"] = self.0["components"].clone();
        jsonschema::options()
            .should_validate_formats(true)
            .build(&root)
            .expect("the schema is JSON Schema 2020-12")
    }

    /// Returns the parts of a value that the schema does not allow.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        self.validator(schema)
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }
}

pub struct Reply<'a> {
    pub status: u16,
    pub response: &'a Value,
    pub content_type: &'a str,
    pub schema: &'a Value,
    pub examples: Vec<(&'a str, &'a Value)>,
}

impl Reply<'_> {
    /// Checks that the answer has this reply's status, type, headers and shape.
    #[track_caller]
    pub fn assert_describes(&self, document: &Document, answer: &Answer, context: &str) {
        let body = String::from_utf8_lossy(&answer.bytes);
        assert_eq!(answer.status.as_u16(), self.status, "{context}: {body}");
        let content_type = answer.header("content-type").unwrap_or_default();
        assert_eq!(
            content_type.split(';').next(),
            Some(self.content_type),
            "{context}"
        );
        self.assert_headers(answer, context);
        let value = if self.content_type.ends_with("json") {
            answer.json()
        } else {
            json!(body)
        };
        let faults = document.faults(self.schema, &value);
        assert!(faults.is_empty(), "{context}: {body}: {faults:?}");
    }

    fn assert_headers(&self, answer: &Answer, context: &str) {
        let documented = self.response["headers"].as_object().expect("headers");
        let code = answer.status.is_client_error() || answer.status.is_server_error();
        let code = if code {
            answer.json()["code"].clone()
        } else {
            Value::Null
        };
        for name in documented.keys() {
            let only_with = self.response["x-only-with"][name].as_array();
            let wanted = only_with.is_none_or(|codes| codes.contains(&code));
            assert_eq!(answer.header(name).is_some(), wanted, "{context}: {name}");
        }
        for name in answer.headers.keys() {
            let is_documented = documented
                .keys()
                .any(|known| known.eq_ignore_ascii_case(name.as_str()));
            assert!(
                is_documented || UNDESCRIBED.contains(&name.as_str()),
                "{context}: {name} is not documented"
            );
        }
    }
}
