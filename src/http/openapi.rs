//! The OpenAPI document: what all operations have in common, so that no handler has to say it.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

#[derive(OpenApi)]
#[openapi(
    info(title = "task-server", description = "Submit long-running work, poll it, cancel it."),
    tags(
        (name = "tasks", description = "Submit, watch and cancel tasks"),
        (name = "service", description = "The server itself"),
    )
)]
pub(super) struct ApiDoc;

/// Adds what may happen to every request, whatever it asks for. `guarded` is whether requests have to
/// bring a key.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi, guarded: bool) {
    // Taken from Cargo.toml, where a program that is not published names none.
    document.info.license = None;
    let described = "A line of the file of --api-key-file; `task-server key new` makes one";
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(described)).build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("api_key", SecurityScheme::Http(bearer));
    if guarded {
        let needed = SecurityRequirement::new("api_key", [] as [&str; 0]);
        document.security = Some(vec![needed]);
    }
    for path in document.paths.paths.values_mut() {
        let changing = [&mut path.post, &mut path.delete];
        for operation in changing.into_iter().flatten() {
            declare(operation, "403", "The request comes from a web page of another origin");
            declare(operation, "408", "The body came too slowly");
            declare(operation, "413", "The body is too large");
            common(operation);
        }
        path.get.iter_mut().for_each(common);
    }
}

fn common(operation: &mut Operation) {
    declare(operation, "400", "The request is malformed");
    declare(operation, "422", "A query parameter or a body that this route does not know");
    declare(operation, "421", "The server does not go by the name in the Host header");
    declare(operation, "500", "Something is broken here; the log has more");
    declare(operation, "503", "The server is busy or shutting down: try again after Retry-After");
}

/// Adds an error, unless the handler says more about it.
fn declare(operation: &mut Operation, status: &str, description: &str) {
    let error = || RefOr::T(error(description));
    operation.responses.responses.entry(status.to_owned()).or_insert_with(error);
}

fn error(description: &str) -> Response {
    let schema = Ref::from_schema_name("ErrorBody");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}
