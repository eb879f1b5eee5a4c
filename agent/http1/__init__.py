"""HTTP/1.1 without IO: bytes go in, values come out, and what is not understood is refused.

Each fast reader is held to h11 by a property test.

    chunked  fields  head  host  request  request_body  request_reader  response_fast
    response_h11  target
"""
