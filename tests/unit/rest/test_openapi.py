"""The OpenAPI document is valid and holds every operation."""

import inspect

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from mesh.rest.openapi import document
from mesh.rest.operations import OPERATIONS, Server


@pytest.mark.parametrize("server", ["hub", "node"])
def test_the_document_is_openapi_3_1_and_holds_every_operation(server: Server) -> None:
    described = document(server, "0.1.0")
    jsonschema_rs.validator_for(OPENAPI_31).validate(described)
    found = {
        entry["operationId"] for path in described["paths"].values() for entry in path.values()
    }
    assert found == {name for name, o in OPERATIONS.items() if server in o.at}
    for name, schema in described["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert schema.get("description"), f"{name} has no description"
        assert schema["description"] == inspect.cleandoc(schema["description"])
