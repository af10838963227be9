//! `GET /openapi.json`: the OpenAPI document, generated from the handlers.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{ParameterIn, PathItem};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Required, Schema};
use utoipa::{Modify, Number, OpenApi};

use super::error::Problem;
use super::{
    access, audit, bundle, cancel, create, gateway_state, health, hooks, modules, params, policy_sets,
    receipts, requests, rerequest, schemas, shadow, slack, sse, status, usage, wait, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Countersign",
        description = "The approval gateway for risky automation: policies say who must agree, people decide, \
            the caller gets a decision that it can act on. Every error is `application/problem+json` (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        create::create,
        wait::long_poll,
        wait::poll,
        sse::stream,
        status::status,
        status::lineage,
        rerequest::rerequest,
        cancel::cancel,
        usage::consume,
        usage::outcome,
        bundle::bundle,
        receipts::jwks,
        schemas::schema,
        slack::interactions,
        hooks::github,
        hooks::gitlab,
        policy_sets::change::reload,
        access::show,
        audit::list,
        gateway_state::show,
        requests::list::list,
        requests::detail::show,
        requests::operate::cancel,
        requests::operate::expire,
        requests::operate::resend,
        webhooks::dead,
        webhooks::resend,
        modules::put,
        modules::list,
        policy_sets::change::store,
        policy_sets::read::list,
        policy_sets::read::active,
        policy_sets::read::history,
        policy_sets::change::rollback,
        policy_sets::change::activate,
        shadow::start,
        shadow::show,
        shadow::stop,
        shadow::explain,
        health::healthz,
        health::readyz,
        health::metrics,
        openapi,
    ),
    components(schemas(Problem)),
    modifiers(&Security, &Problems, &OptionalBody, &Numbers)
)]
struct Document;

/// How every call that needs the store can fail.
pub(super) const STORE_ERRORS: &str =
    "500 `internal`; 503 `store_unavailable`, `store_full`, `store_timeout`, with `Retry-After`";

/// How admins authenticate.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut admin = Http::new(HttpAuthScheme::Bearer);
        admin.description = Some("`ADMIN_TOKEN`, or an API key or a token of an admin of the access file. Calls that read need the role \
                `read`, those that act on requests `operate`, all others `activate`; `ADMIN_TOKEN` has every role, and is also taken as the header \
                `x-admin-token`.".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("admin", SecurityScheme::Http(admin));
    }
}

/// Gives every range of errors, `4XX` and `5XX`, its body: a [`Problem`].
///
/// Handlers document ranges, with each status and code in the description.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten();
            let responses = operations.flat_map(|operation| &mut operation.responses.responses);
            for (status, response) in responses {
                if let (true, RefOr::T(response)) = (status.ends_with("XX"), response) {
                    response.content.insert("application/problem+json".to_owned(), RefOr::T(problem.clone()));
                }
            }
        }
    }
}

/// Says of the reload that its body may be left out. An optional type would say that the body may be `null`.
struct OptionalBody;

impl Modify for OptionalBody {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let reload =
            document.paths.paths.get_mut("/api/admin/reload-policy").and_then(|item| item.post.as_mut());
        if let Some(RefOr::T(body)) = reload.and_then(|operation| operation.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
    }
}

/// Says of every whole number in a query string which one is the largest.
struct Numbers;

impl Modify for Numbers {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post].into_iter().flatten();
            for parameter in operations.flat_map(|operation| operation.parameters.iter_mut().flatten()) {
                if let RefOr::T(parameter) = parameter
                    && let (ParameterIn::Query, Some(RefOr::T(Schema::Object(schema)))) =
                        (&parameter.parameter_in, &mut parameter.schema)
                    && schema.schema_type == SchemaType::Type(Type::Integer)
                {
                    schema.maximum = usize::try_from(params::LARGEST).ok().map(Number::UInt);
                }
            }
        }
    }
}

/// The OpenAPI document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The parameters of query strings, by path.
pub(super) fn query_parameters() -> BTreeMap<String, BTreeSet<String>> {
    let of_path = |(path, item): (String, PathItem)| {
        let operations = [item.get, item.put, item.post, item.delete].into_iter().flatten();
        let parameters = operations.flat_map(|operation| operation.parameters).flatten();
        let names = parameters.filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name),
            RefOr::T(_) | RefOr::Ref(_) => None,
        });
        (path, names.collect())
    };
    document().paths.paths.into_iter().map(of_path).collect()
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use serde_json::{Value, json};

    use super::super::check::Check;
    use super::*;

    /// The document keeps one of two schemas with one name, and says nothing.
    #[test]
    fn no_two_types_have_one_name_in_the_document() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut types: BTreeMap<String, usize> = BTreeMap::new();
        for file in sources(&host) {
            for name in described(&fs::read_to_string(file).expect("it can be read")) {
                *types.entry(name).or_default() += 1;
            }
        }
        let components = document().components.expect("there are some").schemas;
        assert!(components.len() > 20, "{}", components.len());
        for name in components.keys() {
            assert_eq!(types.get(name), Some(&1), "types called `{name}`");
        }
    }

    /// The names of the types in a source that have a schema.
    fn described(source: &str) -> Vec<String> {
        let name =
            |text: &str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let by_hand = source.split("impl utoipa::ToSchema for ").skip(1).map(name);
        let other = source.split("utoipa::ToSchema").skip(1).filter(|rest| !rest.starts_with(" for "));
        let derived = other.filter_map(|rest| {
            let kind = ["struct ", "enum "].iter().filter_map(|kind| Some((rest.find(kind)?, kind))).min();
            kind.map(|(at, kind)| name(&rest[at + kind.len()..]))
        });
        by_hand.chain(derived).collect()
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("it can be read");
        let paths = entries.map(|entry| entry.expect("it can be read").path());
        paths
            .flat_map(|path| match path.extension() {
                _ if path.is_dir() => sources(&path),
                Some(extension) if extension == "rs" => vec![path],
                _ => Vec::new(),
            })
            .collect()
    }

    /// The patterns in the document and the checks of the gateway are the same rule, in two languages.
    #[test]
    fn the_document_refuses_the_texts_that_the_checks_refuse() {
        let document = serde_json::to_value(document()).expect("it is JSON");
        let field = |schema: &str, field: &str| {
            let found = &document["components"]["schemas"][schema]["properties"][field];
            assert!(found["pattern"].is_string(), "{schema}.{field}: {found}");
            jsonschema::validator_for(found).expect("it is a schema")
        };
        let line = |text: &str| {
            let mut check = Check::default();
            check.name("", text, 128);
            check.finish().is_ok()
        };
        let lines = |least| {
            move |text: &str| {
                let mut check = Check::default();
                check.text("", text, least, 1000);
                check.finish().is_ok()
            }
        };
        let around = ["", "a", " ", "ab", "\n"];
        let texts: Vec<String> = ('\0'..'\u{3001}')
            .filter(|c| (*c as u32) < 0x100 || c.is_whitespace())
            .flat_map(|c| {
                around.iter().flat_map(move |before| around.map(|after| format!("{before}{c}{after}")))
            })
            .chain([String::new(), "a".repeat(128), "a".repeat(129), "é".repeat(1000), "é".repeat(1001)])
            .collect();
        let hold = |schema: &str, name: &str, is_taken: &dyn Fn(&str) -> bool| {
            let validator = field(schema, name);
            for text in &texts {
                let said = validator.is_valid(&Value::String(text.clone()));
                assert_eq!(said, is_taken(text), "{schema}.{name}: {}", json!(text));
            }
        };
        hold("CreateBody", "action", &line);
        hold("Party", "id", &line);
        hold("ReloadBody", "actor", &line);
        hold("CancelBody", "reason", &lines(1));
        hold("ExplainBody", "why", &lines(3));
    }
}
