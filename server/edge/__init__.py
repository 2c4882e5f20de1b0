"""The port: front door, HTTP by Hypercorn and Starlette, media by picows, carriers' routes, health."""
