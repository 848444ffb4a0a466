"""The API described in OpenAPI 3.1; every module but `route` is loaded when somebody asks."""
