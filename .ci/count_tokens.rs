//! Prints how many cl100k_base tokens a text file has, by tiktoken-rs alone.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("expected the path of a text file")?;
    let text = std::fs::read_to_string(path)?;
    println!("{}", tiktoken_rs::cl100k_base()?.encode_ordinary(&text).len());
    Ok(())
}
