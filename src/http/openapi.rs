//! The OpenAPI document: responses that operations share are declared here, not at each handler.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::error::ErrorBody;

/// Responses of every operation.
const ALWAYS: [(&str, &str); 5] = [
    ("400", "Malformed request"),
    ("421", "Host header that the server does not accept"),
    ("422", "Invalid query parameter or body"),
    ("500", "Internal error; see the log"),
    ("503", "Busy or shutting down; retry after Retry-After"),
];

/// Responses of operations that change something.
const CHANGING: [(&str, &str); 4] = [
    ("403", "Read-only API key, or a web page of another origin"),
    ("408", "Body not received in time"),
    ("413", "Body too large"),
    ("507", "Disk full"),
];

#[derive(OpenApi)]
#[openapi(
    info(title = "task-server", description = "Submit long-running work, poll it, cancel it."),
    components(schemas(ErrorBody)),
    tags(
        (name = "tasks", description = "Submit, watch and cancel tasks"),
        (name = "service", description = "The server itself"),
    )
)]
pub(super) struct ApiDoc;

/// Adds the shared responses, and the API key if `guarded`.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi, guarded: bool) {
    // utoipa fills it in from Cargo.toml, and an unpublished package has none.
    document.info.license = None;
    let description = "API key, as printed by `task-server key new`";
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("api_key", SecurityScheme::Http(bearer));
    if guarded {
        let needed = SecurityRequirement::new("api_key", [] as [&str; 0]);
        document.security = Some(vec![needed]);
    }
    // The router's name for a parameter that may hold slashes.
    let paths = std::mem::take(&mut document.paths.paths);
    let paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item));
    document.paths.paths = paths.collect();
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.post, &mut item.delete].into_iter().flatten() {
            declare(operation, &CHANGING);
        }
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            declare(operation, &ALWAYS);
            if operation.security.is_none() {
                declare(operation, &[("401", "No valid API key")]);
            }
            if path.contains("{task_id}") {
                declare(operation, &[("404", "Task not found")]);
            }
        }
    }
}

/// Adds error responses, except for a status that the handler describes itself.
fn declare(operation: &mut Operation, errors: &[(&str, &str)]) {
    for &(status, description) in errors {
        let schema = Some(Ref::from_schema_name("ErrorBody"));
        let content = ContentBuilder::new().schema(schema).build();
        let error = ResponseBuilder::new().description(description);
        let error = error.content("application/json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(error));
    }
}
