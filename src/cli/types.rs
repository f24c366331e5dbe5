//! `task-server types`: lists task types and their parameters.

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::terminal::{escape, print_json, print_line, print_table};
use crate::task::Fault;

const EXAMPLES: &str = "\
Examples:
  task-server types
  task-server types tokenize
  task-server types tokenize --json | jq .parameters      # its JSON Schema";

/// Lists task types, or the parameters of one type
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct TypesArgs {
    /// Type to show with its parameters
    #[arg(value_name = "TYPE")]
    task_type: Option<String>,

    #[command(flatten)]
    connection: Connection,
}

/// A task type as sent by the server.
#[derive(Deserialize)]
pub(super) struct TypeView {
    task_type: String,
    description: String,
    /// JSON Schema.
    pub(super) parameters: Value,
    defaults: Map<String, Value>,
    input_file_path: String,
    output_file_path: String,
    /// What is wrong with the file that declares the type.
    problem: Option<String>,
}

impl TypeView {
    /// Looks up a type by name.
    pub(super) async fn find(client: &Client, name: &str) -> Result<Option<Self>, Failure> {
        let json = client.json(Request::get("/task-types")).await?;
        let types: Vec<Self> = client.parse(&json)?;
        Ok(types.into_iter().find(|found| found.task_type == name))
    }
}

pub(super) async fn run(args: TypesArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let json = client.json(Request::get("/task-types")).await?;
    let types: Vec<TypeView> = client.parse(&json)?;
    let Some(name) = args.task_type else {
        match args.connection.json {
            true => print_json(&json)?,
            false => print_types(&types)?,
        }
        return Ok(Exit::Done);
    };
    let Some(index) = types.iter().position(|found| found.task_type == name) else {
        let names = types.iter().map(|found| found.task_type.as_str());
        let fault = Fault::choice(&[], "task type", &name, names);
        return Err(Failure::new(Exit::Usage, escape(&fault.msg)));
    };
    if args.connection.json {
        let each: Vec<&RawValue> = client.parse(&json)?;
        print_json(each[index].get())?;
    } else {
        print_type(&types[index])?;
    }
    Ok(Exit::Done)
}

fn print_types(types: &[TypeView]) -> Result<(), Failure> {
    let header = ["TYPE", "INPUT", "OUTPUT", "DESCRIPTION"].map(str::to_owned).to_vec();
    let row = |found: &TypeView| {
        let first_line = found.description.lines().next().unwrap_or_default();
        let problem = found.problem.as_ref().map(|problem| format!("problem: {problem}"));
        let last = problem.as_deref().unwrap_or(first_line);
        let cells = [&found.task_type, &found.input_file_path, &found.output_file_path, last];
        cells.map(escape).to_vec()
    };
    let rows: Vec<_> = std::iter::once(header).chain(types.iter().map(row)).collect();
    Ok(print_table(&rows, None)?)
}

fn print_type(found: &TypeView) -> Result<(), Failure> {
    if let Some(problem) = &found.problem {
        print_line(&escape(&format!("problem: {problem}")))?;
    }
    for line in found.description.lines() {
        print_line(&escape(line))?;
    }
    print_line("")?;
    let none = Map::new();
    let properties = found.parameters["properties"].as_object().unwrap_or(&none);
    let required = found.parameters["required"].as_array();
    let parameter = |(name, property): (&String, &Value)| {
        let is_required = required.is_some_and(|names| names.iter().any(|one| one == name));
        let absent = if is_required { "required" } else { "optional" };
        let default = found.defaults.get(name).map_or(absent.to_owned(), Value::to_string);
        let description = property["description"].as_str().unwrap_or_default();
        vec![escape(name), escape(&default), escape(&description.replace('\n', " "))]
    };
    let header = ["PARAMETER", "DEFAULT", "DESCRIPTION"].map(str::to_owned).to_vec();
    let paths = [("--input", &found.input_file_path), ("--output", &found.output_file_path)];
    let path =
        |(option, usage): (&str, &String)| vec![option.to_owned(), escape(usage), String::new()];
    let rows =
        std::iter::once(header).chain(properties.iter().map(parameter)).chain(paths.map(path));
    Ok(print_table(&rows.collect::<Vec<_>>(), None)?)
}
