//! Reflection: the shape of the services that are answered here, for programs that were given no
//! proto files (grpc/doc/server-reflection.md). What is behind an upstream is not shown: nobody
//! here knows it.

use std::{collections::HashSet, sync::LazyLock};

use bytes::Bytes;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

use super::MAX_REQUEST;
use crate::grpc::{
    Code, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    Question, Reply, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse, Status,
    decode_unary, descriptor, encode,
};

/// The answer to one question, each framed by its prefix.
///
/// # Errors
/// The status that ends the stream, for what is no question.
pub fn reflect(message: &[u8], encoding: Option<&[u8]>) -> Result<Bytes, Status> {
    let request: ServerReflectionRequest = decode_unary(message, encoding, MAX_REQUEST)?;
    let Some(question) = &request.question else {
        return Err(Status::new(Code::InvalidArgument, "a request without a question"));
    };
    Ok(encode(&ServerReflectionResponse {
        valid_host: request.host.clone(),
        reply: Some(reply(question)),
        original_request: Some(request),
    }))
}

fn reply(question: &Question) -> Reply {
    let file = |fits: &dyn Fn(&File) -> bool| FILES.iter().find(|file| fits(file));
    let found = match question {
        Question::FileByFilename(name) => file(&|file| file.name == *name).map(File::reply),
        Question::FileContainingSymbol(name) => {
            file(&|file| file.symbols.contains(name)).map(File::reply)
        }
        // No message here can be extended.
        Question::FileContainingExtension(_) => None,
        Question::AllExtensionNumbersOfType(name) => file(&|file| file.messages.contains(name))
            .map(|_| {
                let base_type_name = name.clone();
                let none = ExtensionNumberResponse { base_type_name, extension_number: vec![] };
                Reply::ExtensionNumbers(none)
            }),
        Question::ListServices(_) => {
            let names = FILES.iter().flat_map(|file| file.services.clone());
            let service = names.map(|name| ServiceResponse { name }).collect();
            Some(Reply::Services(ListServiceResponse { service }))
        }
    };
    found.unwrap_or_else(|| {
        Reply::Error(ErrorResponse {
            error_code: Code::NotFound as i32,
            error_message: "not found; methods of an upstream are not described here".to_owned(),
        })
    })
}

/// Made when first asked for.
static FILES: LazyLock<[File; 3]> = LazyLock::new(|| {
    [descriptor::health(), descriptor::reflection(), descriptor::reflection_alpha()].map(File::new)
});

/// A file, and the names in it.
struct File {
    name: String,
    bytes: Vec<u8>,
    services: Vec<String>,
    messages: HashSet<String>,
    /// All names, those of messages and services too.
    symbols: HashSet<String>,
}

impl File {
    fn new(described: FileDescriptorProto) -> Self {
        let mut file = Self {
            name: described.name().to_owned(),
            bytes: described.encode_to_vec(),
            services: Vec::new(),
            messages: HashSet::new(),
            symbols: HashSet::new(),
        };
        let package = described.package();
        for message in &described.message_type {
            file.add_message(package, message);
        }
        for service in &described.service {
            let name = format!("{package}.{}", service.name());
            for method in &service.method {
                file.symbols.insert(format!("{name}.{}", method.name()));
            }
            file.symbols.insert(name.clone());
            file.services.push(name);
        }
        file
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let fields = message.field.iter().map(|field| field.name());
        let choices = message.oneof_decl.iter().map(|choice| choice.name());
        self.symbols.extend(fields.chain(choices).map(|member| format!("{name}.{member}")));
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for values in &message.enum_type {
            self.add_enum(&name, values);
        }
        self.symbols.insert(name.clone());
        self.messages.insert(name);
    }

    /// An enumeration's values are named beside it, not in it.
    fn add_enum(&mut self, scope: &str, values: &EnumDescriptorProto) {
        self.symbols.insert(format!("{scope}.{}", values.name()));
        self.symbols.extend(values.value.iter().map(|value| format!("{scope}.{}", value.name())));
    }

    fn reply(&self) -> Reply {
        Reply::Files(FileDescriptorResponse { file_descriptor_proto: vec![self.bytes.clone()] })
    }
}
