"""Typed asyncio clients of the services; who uses them never meets protobuf or gRPC."""
