"""What the agent says of itself at the API server: pods' annotations, Events, the status of routes.

Decided in pod_status, event_objects, lease and route_status (pure: values in, values out; time is given), done in
pod_teller, event_teller, lease_holder and route_teller. Nothing is queued: what is to be said follows from what is so
when there is a chance to say it.
"""
