"""What `mallard bench` measures with: traffic, a load client, and what it is compared with."""
