"""HTTP/1.1 without IO: bytes go in, values come out, and bytes that are not understood are refused.

A property test compares each fast reader with h11.

    chunked  fields  head  host  request  request_body  request_reader  response_fast
    response_h11  target  usual_answers  usual_headers
"""
